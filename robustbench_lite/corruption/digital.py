"""Changes on the way from the camera: images are (H, W, C) in [0, 1], severities 1 to 5."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy import ndimage

Image = NDArray[np.float64]

_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
# displacement, smoothness, jitter of the corners; by the smaller side
_ELASTIC = ((0.0, 0.1, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03))  # fmt: skip
_PIXELS = (0.95, 0.9, 0.85, 0.75, 0.65)
_QUALITY = (80, 65, 58, 50, 40)


def contrast(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Nearer to each channel's mean."""
    mean = image.mean((0, 1), keepdims=True)
    flat: Image = (image - mean) * _CONTRAST[severity - 1] + mean
    return flat


def elastic(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Three corners move, and a smooth random field bends the rest."""
    rows, columns, channels = image.shape
    side = min(rows, columns)
    bend, smooth, jitter = (value * side for value in _ELASTIC[severity - 1])
    reach = max(side // 3, 1)
    middle = np.array([rows, columns]) / 2
    corners = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + stream.uniform(-jitter, jitter, corners.shape)
    affine = np.linalg.solve(np.c_[corners, np.ones(3)], moved)
    draws = [stream.uniform(-1, 1, (rows, columns)) for _ in range(2)]
    field = [bend * ndimage.gaussian_filter(draw, smooth, mode="reflect") for draw in draws]
    down, right = np.mgrid[:rows, :columns].astype(np.float64)
    plane = np.stack([down, right, np.ones_like(down)], 2) @ affine
    at = [plane[:, :, 0] + field[0], plane[:, :, 1] + field[1]]
    bent = [ndimage.map_coordinates(image[:, :, c], at, order=1, mode="reflect")
            for c in range(channels)]  # fmt: skip
    return np.stack(bent, 2)


def pixelate(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Fewer pixels, enlarged again."""
    rows, columns, channels = image.shape
    share = _PIXELS[severity - 1]
    small = (max(1, int(columns * share)), max(1, int(rows * share)))
    layers = []
    for c in range(channels):
        picture = Picture.fromarray(image[:, :, c].astype(np.float32))
        picture = picture.resize(small, Picture.Resampling.BOX)
        layers.append(np.asarray(picture.resize((columns, rows), Picture.Resampling.BOX)))
    return np.stack(layers, 2).astype(np.float64)


def jpeg(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """JPEG's loss; images that are not of three channels are stored channel by channel."""
    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
    if pixels.shape[2] == 3:
        return _stored(pixels, _QUALITY[severity - 1])
    layers = [_stored(pixels[:, :, c], _QUALITY[severity - 1]) for c in range(pixels.shape[2])]
    return np.stack(layers, 2)


def _stored(pixels: NDArray[np.uint8], quality: int) -> Image:
    file = io.BytesIO()
    Picture.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Picture.open(file)).astype(np.float64) / 255
