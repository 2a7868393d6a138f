"""Blur of the camera: images are (H, W, C) in [0, 1], severities 1 to 5.

Lengths are in pixels of an image of 32; `scale` brings them to the image.
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


def smoothed(image: Image, sigma: float) -> Image:
    """Gaussian blur of each channel."""
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect")


def defocus(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """A disk with a smooth rim instead of a point."""
    radius, rim = (value * scale(image) for value in _DEFOCUS[severity - 1])
    reach = int(np.ceil(radius + 3 * rim))
    index = np.arange(-reach, reach + 1)
    disk = (index[:, None] ** 2 + index[None, :] ** 2 <= radius**2).astype(np.float64)
    kernel = ndimage.gaussian_filter(disk, rim, mode="constant")
    kernel /= kernel.sum()
    return ndimage.convolve(image, kernel[:, :, None], mode="reflect")


def glass(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Every pixel comes from a place nearby, between two slight blurs."""
    sigma, reach, turns = _GLASS[severity - 1]
    sigma, reach = sigma * scale(image), max(1, round(reach * scale(image)))
    mixed = smoothed(image, sigma)
    last = np.array(image.shape[:2]) - 1
    for _ in range(turns):
        hops = stream.integers(-reach, reach + 1, (*image.shape[:2], 2))
        there = (np.moveaxis(np.indices(image.shape[:2]), 0, 2) + hops).clip(0, last)
        mixed = mixed[there[:, :, 0], there[:, :, 1]]
    return smoothed(mixed, sigma)


def motion(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Smeared in a direction within 45 degrees of the horizontal."""
    length, sigma = (value * scale(image) for value in _MOTION[severity - 1])
    return smeared(image, length, sigma, stream.uniform(-45, 45))


def smeared(image: Image, length: float, sigma: float, degrees: float) -> Image:
    """The mean of copies along a way, with weights that fall like half a Gaussian."""
    angle = np.deg2rad(degrees)
    steps = np.arange(int(2 * length) + 1)
    weights = np.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2)
    weights /= weights.sum()
    total = np.zeros_like(image)
    for step, weight in zip(steps, weights, strict=True):
        if weight > 1e-4:
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
    """The middle of the image, so that it fills the frame."""
    middle = (np.array(image.shape[:2]) - 1) / 2
    offset = (*(middle * (1 - 1 / factor)), 0)
    ratio = (1 / factor, 1 / factor, 1)
    return ndimage.affine_transform(image, ratio, offset, order=1, mode="nearest")
