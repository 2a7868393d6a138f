"""Blur of the camera: images are (H, W, C) in [0, 1], severities 1 to 5.

Lengths are in pixels of an image of 32; `scale` brings them to the image. Kernels are those of an
image of 32, stretched: so short a blur depends on the grid that it is computed on.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]

_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))  # radius, smoothing
_GLASS = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))  # sigma, reach, turns
_MOTION = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))  # length, sigma
_ZOOM = (1.06, 1.11, 1.16, 1.21, 1.26)


def scale(image: Image) -> float:
    """The smaller side by 32, the side that the strengths are made for."""
    return float(min(image.shape[:2]) / 32)


def grain(image: Image) -> float:
    """How many of a blur's points a pixel of an image of 32 has along each axis."""
    return max(scale(image), 1.0)


def _shares(reach: int, step: float, width: float) -> Image:
    """(points, pixels) how much of each point of a kernel each pixel gets.

    Args:
        reach: points on either side of the middle.
        step: pixels from one point to the next.
        width: of a point in pixels, 1 or more.
    """
    far = int(np.ceil(reach * step + (width + 1) / 2))
    apart = np.abs(step * np.arange(-reach, reach + 1)[:, None] - np.arange(-far, far + 1))
    shares: Image = ((width + 1) / 2 - apart).clip(0, 1) / width
    return shares


def smoothed(image: Image, sigma: float) -> Image:
    """Gaussian blur of each channel."""
    reach = int(np.ceil(4 * sigma))
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = bell / bell.sum() @ _shares(reach, scale(image), 1.0)
    along = ndimage.convolve1d(image, kernel, 0, mode="reflect")
    return ndimage.convolve1d(along, kernel, 1, mode="reflect")


def defocus(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """A disk with a smooth rim instead of a point."""
    radius, rim = _DEFOCUS[severity - 1]
    reach = int(np.ceil(radius + 3 * rim))
    index = np.arange(-reach, reach + 1)
    disk = (index[:, None] ** 2 + index[None, :] ** 2 <= radius**2).astype(np.float64)
    shares = _shares(reach, scale(image), grain(image))
    kernel = shares.T @ ndimage.gaussian_filter(disk, rim, mode="constant") @ shares
    kernel /= kernel.sum()
    return ndimage.convolve(image, kernel[:, :, None], mode="reflect")


def glass(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """One pixel after the other changes places with one nearby, between two slight blurs."""
    sigma, hop, turns = _GLASS[severity - 1]
    wanted = hop * scale(image)
    reach = max(1, round(wanted))
    chance = min(1.0, wanted) ** 2  # of a hop by a pixel, where they ought to be shorter than one
    rows, columns, channels = image.shape
    source = list(range(rows * columns))
    for _ in range(turns):
        some = stream.random((rows * columns, 1)) < chance
        hops = iter((some * stream.integers(-reach, reach, (rows * columns, 2))).tolist())
        for row in range(rows - reach, reach, -1):
            for column in range(columns - reach, reach, -1):
                down, right = next(hops)
                here, there = row * columns + column, (row + down) * columns + column + right
                source[here], source[there] = source[there], source[here]
    mixed = smoothed(image, sigma).reshape(-1, channels)[source]
    return smoothed(mixed.reshape(image.shape), sigma)


def motion(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Smeared in a direction within 45 degrees of the horizontal."""
    return smeared(image, *_MOTION[severity - 1], stream.uniform(-45, 45))


def smeared(image: Image, length: float, sigma: float, degrees: float) -> Image:
    """The mean of copies along a way, with weights that fall like half a Gaussian.

    Args:
        image: (H, W, C).
        length: half of the way's.
        sigma: of the Gaussian.
        degrees: between the way and a row.
    """
    angle = np.deg2rad(degrees)
    steps = np.arange(int(2 * length * grain(image)) + 1)
    weights = np.exp(-0.5 * (steps / (sigma * grain(image))) ** 2)
    weights = weights[weights > 1e-4] / weights[weights > 1e-4].sum()
    total = np.zeros_like(image)
    away = steps[: len(weights)] * scale(image) / grain(image)
    for step, weight in zip(away, weights, strict=True):
        way = (step * np.sin(angle), step * np.cos(angle), 0)
        total += weight * ndimage.shift(image, way, order=1, mode="nearest")
    return total


def zoom(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """The mean of the image and ever larger copies of it."""
    factors = np.arange(1.0, _ZOOM[severity - 1], 0.01)
    copies = [enlarged(image, factor) for factor in factors]
    mean: Image = (image + np.sum(copies, axis=0)) / (len(copies) + 1)
    return mean


def enlarged(image: Image, factor: float) -> Image:
    """A middle part, of whole pixels on an image of 32, so that it fills the frame."""
    finer = grain(image) / scale(image)
    starts, ratios = zip(*(_cut(side, factor, finer) for side in image.shape[:2]), strict=True)
    return ndimage.affine_transform(image, (*ratios, 1), (*starts, 0), order=1, mode="nearest")


def _cut(side: int, factor: float, finer: float) -> tuple[float, float]:
    """Where the first pixel of an enlarged side comes from, and how far apart the pixels do.

    It is worked out in pixels that are `finer` times smaller.
    """
    length = round(side * finer)
    kept = int(np.ceil(length / factor))
    wide = max(round(kept * factor), length)
    apart = (kept - 1) / max(wide - 1, 1)
    first = (length - kept) // 2 + ((wide - length) // 2 + (finer - 1) / 2) * apart
    return (first + 0.5) / finer - 0.5, apart
