"""One image, from whatever it is stored as, to a tensor in [0, 1] of the shape that is wanted."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustbench_lite.errors import InputError

# Other formats have no place among photographs, and one of them starts a program to be read.
_FORMATS = ["JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY = ("1", "L", "LA")
_ELONGATED = 16  # times as long as broad: only the middle is resized, to save memory
_LUMA = (0.299, 0.587, 0.114)
_OPENING = threading.Lock()  # what warnings do is the whole process's


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


def image_of(content: bytes, where: str) -> Image.Image:
    """The image in the bytes of a file, decoded; the first one if there are several.

    Args:
        content: of the file.
        where: what errors call the image.

    Raises:
        InputError: it is no image, is damaged, or has more pixels than PIL thinks safe.
    """
    if not content:
        raise InputError(f"image {where} is empty; remove or repair it")
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_formats())
        image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(
            f"image {where} has more than {Image.MAX_IMAGE_PIXELS} pixels, which may be an attack "
            "on this machine; remove it or make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise InputError(
            f"image {where} is in no image format that is known here; remove or repair it"
        ) from None
    except Exception as error:  # each format's reader has its own for a damaged file
        raise _unreadable(where, error) from error
    return image


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _unreadable(where: str, error: Exception) -> InputError:
    told = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"image {where} cannot be read ({told}); remove or repair it")


def tensor_of(image: Image.Image | Tensor | np.ndarray, view: View, where: str) -> Tensor:
    """(C, H, W) float32 in [0, 1].

    Photographs are turned upright as their EXIF says. What is transparent is shown as if it were
    not, as `convert("RGB")` does. A PIL image is resized and cropped exactly as by torchvision's
    `Resize(round(size / crop), interpolation)` and `CenterCrop(size)`; tensors and arrays, where
    they are not `size` x `size` yet, likewise but for rounding.

    Args:
        image: PIL's of any mode, a tensor (C, H, W), (H, W, C) or (H, W), or an array likewise;
            uint8, or floats in [0, 1].
        view: the wanted shape.
        where: what errors call the image.

    Raises:
        InputError: it is none of these, is damaged, or cannot be brought into the shape.
    """
    if not isinstance(image, Image.Image):
        return _reshaped(_numbers(image, where), view, where)
    try:
        image.load()
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        upright = image if turn is None else image.transpose(turn)
        if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
            return _deep(upright, view, where)
        return _from_pil(upright, view, where)
    except InputError:
        raise
    except Exception as error:  # an image that a data set opened is decoded only here
        raise _unreadable(where, error) from error


def _from_pil(image: Image.Image, view: View, where: str) -> Tensor:
    if "transparency" in image.info:  # of which PIL would warn
        image = image.copy()
        del image.info["transparency"]
    grey = image.mode in _GREY
    mode = {0: "L" if grey else "RGB", 1: "L", 3: "RGB", 4: "RGBA"}.get(view.channels)
    if mode is None:
        raise _wrong_channels(where, len(image.getbands()), view)
    plain = image if grey or mode == "RGBA" else image.convert("RGB")
    fitted = _fitted(plain.convert(mode), view)
    return _channels_first(np.asarray(fitted)).float() / 255


def _deep(image: Image.Image, view: View, where: str) -> Tensor:
    """A grey image of more than 8 bits."""
    values = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        values /= 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        kind = "floats outside 0 to 1" if image.mode == "F" else "pixels of 32 bits"
        raise InputError(f"image {where} has {kind}; save it again with 8 or 16 bits a channel")
    fitted = np.asarray(_fitted(Image.fromarray(values), view)).clip(0, 1)
    return _with_channels(_channels_first(fitted), view, where)


def _channels_first(array: np.ndarray) -> Tensor:
    whole = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.array(whole.transpose(2, 0, 1), order="C"))


def _sides(rows: int, columns: int, view: View) -> tuple[int, int, int, int]:
    """Rows and columns after resizing, then the first row and column of the middle."""
    shorter = round(view.size / (view.crop or 1.0))
    least = min(rows, columns)
    high, wide = (shorter if side == least else shorter * side // least for side in (rows, columns))
    return high, wide, round((high - view.size) / 2), round((wide - view.size) / 2)


def _fitted(image: Image.Image, view: View) -> Image.Image:
    """The middle of the image, at `view.size` x `view.size`; all of it if no size is wanted."""
    if not view.size:
        return image
    high, wide, top, left = _sides(image.height, image.width, view)
    how, end = _RESAMPLING[view.interpolation or "bilinear"], view.size
    if max(high, wide) > _ELONGATED * min(high, wide):
        across, down = image.width / wide, image.height / high
        corners = (left * across, top * down, (left + end) * across, (top + end) * down)
        return image.resize((end, end), how, box=corners)
    if (wide, high) != image.size:
        image = image.resize((wide, high), how)
    return image.crop((left, top, left + end, top + end))


def _numbers(image: Tensor | np.ndarray, where: str) -> Tensor:
    """(C, H, W) float32 in [0, 1], of an array or a tensor of any layout."""
    if isinstance(image, Tensor):
        x = image.detach().cpu()
    else:
        array = np.asarray(image)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        if array.dtype not in (np.uint8, np.float32):
            raise _wrong_type(where, array.dtype)
        x = torch.from_numpy(np.array(array, order="C"))
        if x.ndim == 3 and (x.shape[2] in (1, 3, 4) or x.shape[0] not in (1, 3, 4)):
            x = x.permute(2, 0, 1)
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise _wrong_type(where, x.dtype)
    if x.ndim == 2:
        x = x[None]
    if x.ndim == 3 and x.shape[0] not in (1, 3, 4) and x.shape[2] in (1, 3, 4):
        x = x.permute(2, 0, 1)
    if x.ndim != 3 or x.numel() == 0:
        raise InputError(
            f"image {where} has shape {tuple(x.shape)}; give (channels, rows, columns)"
        )
    if x.dtype == torch.uint8:
        return x.float() / 255
    x = x.float()
    low, high = float(x.min()), float(x.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN is caught, too
        hint = "divide by 255" if low >= 0 and high <= 255 else "undo the normalisation"
        raise InputError(
            f"image {where}: pixels span {low:.4g} to {high:.4g}, not 0 to 1; {hint} "
            "(normalisation belongs in Classifier(mean=..., std=...))"
        )
    return x.clamp(0, 1)


def _wrong_type(where: str, dtype: object) -> InputError:
    return InputError(f"image {where} has type {dtype}; give uint8 or floats in [0, 1]")


def _reshaped(x: Tensor, view: View, where: str) -> Tensor:
    shown = _with_channels(x, view, where)
    if not view.size or shown.shape[1:] == (view.size, view.size):
        return shown.contiguous()
    layers = [_fitted(Image.fromarray(layer.numpy()), view) for layer in shown]
    return torch.stack([torch.from_numpy(np.array(layer)) for layer in layers]).clamp(0, 1)


def _with_channels(x: Tensor, view: View, where: str) -> Tensor:
    has, wanted = len(x), view.channels
    if wanted in (0, has):
        return x
    if has == 4 and wanted == 3:
        return x[:3]
    if has == 1 and wanted == 3:
        return x.expand(3, -1, -1).contiguous()
    if has in (3, 4) and wanted == 1:
        return (x[:3] * x.new_tensor(_LUMA).reshape(3, 1, 1)).sum(0, keepdim=True)
    raise _wrong_channels(where, has, view)


def _wrong_channels(where: str, has: int, view: View) -> InputError:
    return InputError(
        f"image {where} has {has} channels, but {view.channels} are wanted; "
        "give images with as many channels as the model takes"
    )
