"""Weather and light: images are (H, W, C) in [0, 1], severities 1 to 5."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from robustbench_lite.corruption.blur import enlarged, smeared

Image = NDArray[np.float64]

# mean, deviation, enlargement, threshold, length, sigma, share of the image that stays
_SNOW = (
    (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
_FROST = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # image, ice
_ICE = (0.45, 0.8)  # the photographs' mean light, from the darkest to the brightest
_RELIEF = 0.45  # gives crystals the deviation that the photographs have at this size
_FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))  # thickness, decay
_BRIGHTER = (0.05, 0.1, 0.15, 0.2, 0.3)


def clouds(shape: tuple[int, int], decay: float, stream: np.random.Generator) -> Image:
    """(H, W) in [0, 1]: random grids of doubling fineness, each `decay` times weaker."""
    total = np.zeros(shape)
    cells, weight = 1, 1.0
    while cells <= max(shape):
        grid = stream.random((cells + 1, cells + 1))
        at = [np.linspace(0, cells, length) for length in shape]
        total += weight * ndimage.map_coordinates(grid, np.meshgrid(*at, indexing="ij"), order=1)
        cells, weight = 2 * cells, weight / decay
    low, high = total.min(), total.max()
    level: Image = (total - low) / max(high - low, 1e-12)
    return level


def snow(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Flakes that the wind drives, over a paler image."""
    mean, deviation, growth, threshold, length, sigma, share = _SNOW[severity - 1]
    flakes = stream.normal(mean, deviation, (*image.shape[:2], 1))
    flakes = enlarged(flakes, growth)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    # Half as long: the interpolation between pixels smears as much again.
    flakes = smeared(flakes, length / 2, sigma / 2, stream.uniform(-135, -45))
    pale = np.maximum(image, image.mean(2, keepdims=True) * 1.5 + 0.5)
    white: Image = share * image + (1 - share) * pale + flakes + flakes[::-1, ::-1]
    return white


def frost(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Ice in ridges, over a darker image."""
    kept, ice = _FROST[severity - 1]
    ridges = 1 - np.abs(2 * clouds(image.shape[:2], 1.0, stream) - 1)
    crystals = (stream.uniform(*_ICE) + _RELIEF * (ridges - ridges.mean())).clip(0, 1)
    iced: Image = kept * image + ice * crystals[:, :, None]
    return iced


def fog(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Clouds in front; the brightest pixel stays as bright."""
    thickness, decay = _FOG[severity - 1]
    top = image.max()
    drift = thickness * clouds(image.shape[:2], decay, stream)
    veiled: Image = (image + drift[:, :, None]) * top / max(top + thickness, 1e-12)
    return veiled


def brightness(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """More light: the largest channel of each pixel rises, the colour stays."""
    value = image.max(2, keepdims=True)
    more = (value + _BRIGHTER[severity - 1]).clip(0, 1)
    coloured = image * more / np.maximum(value, 1e-12)
    lit: Image = np.where(value > 0, coloured, more)
    return lit
