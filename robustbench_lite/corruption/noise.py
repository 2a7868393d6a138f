"""Noise of the camera: images are (H, W, C) in [0, 1], severities 1 to 5."""

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]

_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
_PHOTONS = (500, 250, 100, 75, 50)
_DEAD = (0.01, 0.02, 0.03, 0.05, 0.07)


def gaussian(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Low light."""
    return image + stream.normal(0, _DEVIATION[severity - 1], image.shape)


def shot(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Few photons."""
    photons = _PHOTONS[severity - 1]
    return stream.poisson(image * photons) / photons


def impulse(image: Image, severity: int, stream: np.random.Generator) -> Image:
    """Components that are stuck at black or white."""
    dead = stream.random(image.shape) < _DEAD[severity - 1]
    return np.where(dead, stream.integers(0, 2, image.shape), image)
