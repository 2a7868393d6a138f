"""One image, from whatever it is stored as, to a tensor in [0, 1] of the shape that is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from robustbench_lite.errors import InputError

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class View:
    """How images of any shape are brought into one.

    Attributes:
        channels: 1 (grey) or 3 (red, green, blue); 0 leaves each image its own.
        size: rows and columns; 0 leaves each image its own.
        crop: share of the shorter side that is kept, in the middle, before the image has `size`.
        interpolation: bilinear or bicubic.
    """

    channels: int = 0
    size: int = 0
    crop: float = 0.0  # not said
    interpolation: str = ""

    def or_else(self, other: View) -> View:
        """What this one leaves open, as `other` has it."""
        return View(
            self.channels or other.channels,
            self.size or other.size,
            self.crop or other.crop,
            self.interpolation or other.interpolation,
        )


ANY = View()


def tensor_of(image: Image.Image | Tensor | np.ndarray, view: View, where: str) -> Tensor:
    """(C, H, W) float32 in [0, 1].

    Args:
        image: PIL's of any mode, a tensor (C, H, W) or an array (H, W, C) or (H, W).
        view: the wanted shape.
        where: what errors call the image.

    Raises:
        InputError: it is none of these, or cannot be brought into the shape.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, view)
    array = image if isinstance(image, Tensor) else _channels_first(np.asarray(image))
    x = array.float() / 255 if array.dtype == torch.uint8 else array.float()
    if x.ndim != 3 or x.numel() == 0:
        raise InputError(
            f"image {where} has shape {tuple(x.shape)}; give (channels, rows, columns)"
        )
    return x


def _channels_first(array: np.ndarray) -> Tensor:
    whole = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


def _from_pil(image: Image.Image, view: View) -> Tensor:
    upright = ImageOps.exif_transpose(image)
    grey = view.channels == 1 or (not view.channels and upright.mode in ("1", "L"))
    plain = upright.convert("L" if grey else "RGB")
    if view.size:
        plain = _fitted(plain, view)
    return _channels_first(np.asarray(plain)).float() / 255


def _fitted(image: Image.Image, view: View) -> Image.Image:
    """The middle of the image, at `view.size` x `view.size`."""
    shorter = round(view.size / (view.crop or 1.0))
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), _RESAMPLING[view.interpolation or "bilinear"])
    left, top = (width - view.size) // 2, (height - view.size) // 2
    return resized.crop((left, top, left + view.size, top + view.size))
