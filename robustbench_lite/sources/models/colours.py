"""What an image processor does to pixels, measured: its settings have too many dialects to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.errors import InputError

_SIDE = 512  # rows and columns of the images that are shown to it
_WHITE = 255
_TOLERANCE = 1e-3
_BILINEAR = 2  # PIL's number


@dataclass(frozen=True)
class Seen:
    """What a model sees of an image.

    Attributes:
        mean: of each channel that the model sees, which pixels in [0, 1] are normalised with.
        std: of each channel, likewise.
        order: which channel of the image each channel of the model is; empty for the same ones.
        size: rows and columns, 0 for any.
        crop: share of the shorter side that is kept.
        interpolation: how photographs are resized.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    order: tuple[int, ...] = ()
    size: int = 0
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


def seen_by(spec: str, processor: Any, channels: int) -> Seen:
    """What a processor of transformers makes of images in one colour, and of a ramp.

    Args:
        spec: what the user wrote.
        processor: takes a list of images (rows, columns, channels) of 8 bits.
        channels: of the images.

    Raises:
        InputError: it cannot be asked, or does more to colours than to scale, shift and reorder
            them.
    """
    black = _shown(spec, processor, np.zeros(channels))
    lit = [_shown(spec, processor, np.eye(channels)[c] * _WHITE) for c in range(channels)]
    slopes = torch.stack([_middle(image) - _middle(black) for image in lit], 1)
    grey = _middle(_shown(spec, processor, np.full(channels, 51)))
    expected = _middle(black) + slopes.sum(1) * 51 / _WHITE
    source = slopes.abs().argmax(1)
    alone = torch.zeros_like(slopes).scatter(1, source[:, None], slopes.gather(1, source[:, None]))
    scale = alone.sum(1)
    fits = _near(alone, slopes) and _near(grey, expected) and bool((scale > 0).all())
    if not fits or sorted(source.tolist()) != list(range(channels)):
        raise InputError(
            f"the image processor of model {spec!r} does more to colours than to scale, shift and "
            "reorder them; wrap the model in Python and give it as file.py:factory"
        )
    std, mean = 1 / scale, -_middle(black) / scale
    order = tuple(source.tolist())
    rows, columns = black.shape[1:]
    cubic = getattr(processor, "resample", None) not in (None, _BILINEAR)
    back = [order.index(c) for c in range(channels)]  # normalised before they are reordered
    return Seen(
        mean=_rounded(mean[back]),
        std=_rounded(std[back]),
        order=() if order == tuple(range(channels)) else order,
        size=rows if rows == columns and rows != _SIDE else 0,
        crop=_crop(spec, processor, channels, scale[0].item()),
        interpolation="bicubic" if cubic else "bilinear",
    )


def _rounded(numbers: Tensor) -> tuple[float, ...]:
    """As far as float32 tells them; 0.0 instead of -0.0."""
    return tuple(float(f"{v:.6g}") + 0.0 for v in numbers.tolist())


def _middle(image: Tensor) -> Tensor:
    return image[:, image.shape[1] // 2, image.shape[2] // 2]


def _near(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= _TOLERANCE * (1 + b.abs())).all())


def _crop(spec: str, processor: Any, channels: int, scale: float) -> float:
    """The share of a ramp from left to right that is left: from the slope in its middle."""
    ramp = np.arange(_SIDE, dtype=np.float32) * (_WHITE / (_SIDE - 1))
    image = np.broadcast_to(ramp[None, :, None], (_SIDE, _SIDE, channels))
    row = _processed(spec, processor, np.ascontiguousarray(image))[0].float()
    middle = row[row.shape[0] // 2]
    n = len(middle)
    first, last = n // 4, n - n // 4 - 1
    if last <= first:
        return 1.0
    slope = float(middle[last] - middle[first]) / (last - first) / scale  # of white, a pixel
    return round(min(1.0, n * slope * (_SIDE - 1) / _SIDE), 3)


def _shown(spec: str, processor: Any, colour: Sequence[float] | np.ndarray) -> Tensor:
    image = np.broadcast_to(np.asarray(colour), (_SIDE, _SIDE, len(colour)))
    return _processed(spec, processor, np.ascontiguousarray(image.astype(np.uint8)))


def _processed(spec: str, processor: Any, image: np.ndarray) -> Tensor:
    """(C, H, W) of what the processor returns for one image."""
    try:
        record = processor(images=[image], return_tensors="pt", input_data_format="channels_last")
    except Exception as error:  # code of others fails in any way
        raise InputError(
            f"the image processor of model {spec!r} fails ({type(error).__name__}: {error}); "
            "wrap the model in Python and give it as file.py:factory"
        ) from error
    pixels = record.get("pixel_values")
    if not isinstance(pixels, Tensor) or pixels.ndim != 4 or len(record) != 1:
        raise InputError(
            f"model {spec!r} takes more than one picture an image "
            f"({', '.join(record)}); wrap it in Python and give it as file.py:factory"
        )
    return pixels[0].double()
