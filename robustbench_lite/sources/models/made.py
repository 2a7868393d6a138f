"""A model from elsewhere as a classifier: what its maker says of it, and what the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.threat import Access, Norm

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COMMON = ("normalize", "resize", "num_classes")
_SMALL = 64  # pixels: nets for such images are measured at 8/255, larger ones at 4/255

Numbers = Sequence[float]


@dataclass(frozen=True)
class Native:
    """What a model's maker says of it; what is not said stays empty.

    Attributes:
        mean: of each channel, which inputs are normalised with.
        std: of each channel, likewise.
        size: rows and columns of the images, 0 for any.
        channels: of the images, 0 for any.
        classes: number of logits, 0 where it is not known.
        names: of the classes.
        crop: share of the shorter side that is kept of a photograph.
        interpolation: how photographs are resized.
        access: the most that the model can give.
    """

    mean: Numbers = ()
    std: Numbers = ()
    size: int = 0
    channels: int = 0
    classes: int = 0
    names: tuple[str, ...] = ()
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    access: Access = Access.GRADIENTS


class Resized(nn.Module):
    """A model that sees every image at `size` x `size`; gradients pass through the resizing."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, C, H, W)."""
        if x.shape[2:] == (self.size, self.size):
            return self.model(x)  # type: ignore[no-any-return]  # nn.Module.__call__
        shape = (self.size, self.size)
        resized = functional.interpolate(x, shape, mode="bilinear", antialias=True)
        return self.model(resized)  # type: ignore[no-any-return]  # nn.Module.__call__


def checked_settings(spec: str, settings: Mapping[str, str], own: Iterable[str] = ()) -> None:
    """Raise InputError for a setting that is neither common nor one of the source's `own`."""
    known = (*COMMON, *own)
    for key in settings:
        if key not in known:
            raise unknown(f"setting of model {spec!r}", key, known)


def whole_number(spec: str, settings: Mapping[str, str], key: str) -> int:
    """A setting as a number of 1 or more, 0 where it is not given.

    Raises:
        InputError: it is something else.
    """
    text = settings.get(key, "")
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**9):
        raise InputError(f"model {spec!r}: {key}={text} is not a number of 1 or more")
    return int(text or 0)


def made(
    spec: str, module: nn.Module, settings: Mapping[str, str], native: Native
) -> tuple[Classifier, Profile]:
    """The classifier and its profile.

    Args:
        spec: what the user wrote, for messages and tables.
        module: images (N, C, H, W), normalised as its maker says, to logits (N, K).
        settings: those of the user; `normalize` (imagenet, model, none or MEAN,.../STD,...) and
            `resize` (rows and columns that images are brought to inside the classifier) count
            here. `num_classes` is for the source, which builds the module.
        native: what the maker says.

    Raises:
        InputError: a setting has a value that does not exist.
    """
    mean, std = _normalisation(spec, settings.get("normalize", "model"), native)
    size = whole_number(spec, settings, "resize")
    classifier = Classifier(
        Resized(module, size) if size else module,
        mean=mean or None,
        std=std or None,
        classes=native.names or None,
        access=native.access,
        name=spec,
    )
    profile = Profile(
        name=spec,
        classes=native.classes or len(native.names),
        channels=native.channels,
        size=0 if size else native.size,
        parameters=sum(p.numel() for p in module.parameters()),
        test_data="",
        norm=Norm.LINF,
        eps=8 / 255 if 0 < native.size <= _SMALL else 4 / 255,
        crop=native.crop,
        interpolation=native.interpolation,
    )
    return classifier.eval(), profile


def _normalisation(spec: str, text: str, native: Native) -> tuple[Numbers, Numbers]:
    if text == "model":
        return native.mean, native.std
    if text == "none":
        return (), ()
    if text == "imagenet":
        return IMAGENET
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if not mean or len(mean) != len(std):
        raise InputError(
            f"model {spec!r}: normalize={text} is none of imagenet, model, none and MEAN/STD; "
            "write it as 0.49,0.48,0.45/0.25,0.24,0.26, a number a channel"
        )
    return mean, std
