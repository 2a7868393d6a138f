"""A model from elsewhere as a classifier: what its maker says of it, and what the user says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.threat import Access, Norm

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COMMON = ("normalize", "bounds", "resize", "num_classes")
RANDOM = "Its weights are random."
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
        bounds: the range of pixels that the model takes, before `mean` and `std`.
        summary: a sentence on what the user should know.
        test_data: what it is measured on where the user names no data.
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
    bounds: tuple[float, float] = (0.0, 1.0)
    summary: str = ""
    test_data: str = ""


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


def is_set(spec: str, settings: Mapping[str, str], key: str) -> bool:
    """Is a setting `yes`?

    Raises:
        InputError: it is neither yes nor no.
    """
    text = settings.get(key, "no")
    if text not in ("yes", "no"):
        raise InputError(f"model {spec!r}: {key}={text} is neither yes nor no")
    return text == "yes"


def weights_file(
    spec: str, settings: Mapping[str, str], *, published: bool, example: str
) -> Path | None:
    """The file of the setting `weights`; None for published weights, and for random ones.

    Args:
        spec: what the user wrote.
        settings: those of the user; `weights` and `random` count here.
        published: the user named weights that the library has.
        example: how to name such weights.

    Raises:
        InputError: there are no weights at all, or random ones besides others.
    """
    file, random = settings.get("weights"), is_set(spec, settings, "random")
    if random and (file is not None or published):
        raise InputError(f"model {spec!r} has weights and random=yes; leave out one of the two")
    if file is None and not published and not random:
        raise InputError(
            f"model {spec!r} would have random weights; name published ones, as {example}, "
            "give a file with --weights FILE, or add ?random=yes if you mean it"
        )
    return None if file is None else Path(file)


def check_outputs(spec: str, wanted: int, published: int) -> None:
    """Raise InputError where `wanted` outputs (0 for any) are not those of published weights."""
    if wanted not in (0, published):
        raise InputError(
            f"the weights of model {spec!r} are for {published} classes, not {wanted}; leave out "
            "--num-classes, or give weights that were trained for it with --weights FILE"
        )


@contextmanager
def seeded() -> Iterator[None]:
    """Weights that are drawn inside are the same each time; torch's generator is as before."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def made(
    spec: str, module: nn.Module, settings: Mapping[str, str], native: Native
) -> tuple[Classifier, Profile]:
    """The classifier and its profile.

    Args:
        spec: what the user wrote, for messages and tables.
        module: images (N, C, H, W), normalised as its maker says, to logits (N, K).
        settings: those of the user; `normalize` (imagenet, model, none or MEAN,.../STD,...),
            `bounds` (LOW,HIGH of the pixels that the module takes) and `resize` (rows and columns
            that images are brought to inside the classifier) count here. `num_classes` is for the
            source, which builds the module.
        native: what the maker says.

    Raises:
        InputError: a setting has a value that does not exist.
    """
    normalize = settings.get("normalize", "model")
    mean, std = _normalisation(spec, normalize, native)
    theirs = native.bounds if normalize == "model" else (0.0, 1.0)
    bounds = _bounds(spec, settings["bounds"]) if "bounds" in settings else theirs
    size = whole_number(spec, settings, "resize")
    classifier = Classifier(
        Resized(module, size) if size else module,
        mean=mean or None,
        std=std or None,
        bounds=bounds,
        classes=native.names or None,
        access=native.access,
        name=spec,
    )
    profile = Profile(
        name=spec,
        summary=native.summary,
        classes=native.classes or len(native.names),
        channels=native.channels,
        size=0 if size else native.size,
        parameters=sum(p.numel() for p in module.parameters()),
        test_data=native.test_data,
        norm=Norm.LINF,
        eps=8 / 255 if 0 < native.size <= _SMALL else 4 / 255,
        crop=native.crop,
        interpolation=native.interpolation,
    )
    return classifier.eval(), profile


def _normalisation(spec: str, text: str, native: Native) -> tuple[Numbers, Numbers]:
    if text == "none":
        return (), ()
    if text == "model":
        mean, std = native.mean, native.std
    elif text == "imagenet":
        mean, std = IMAGENET
    else:
        first, slash, second = text.partition("/")
        mean, std = _numbers(first), _numbers(second)
        if not slash or not mean or len(mean) != len(std) or min(std) <= 0:
            raise InputError(
                f"model {spec!r}: normalize={text} is none of imagenet, model, none and MEAN/STD; "
                "write it as 0.49,0.48,0.45/0.25,0.24,0.26, a number a channel"
            )
    if native.channels and len(mean) not in (0, 1, native.channels):
        raise InputError(
            f"model {spec!r} takes {native.channels} channels, and normalize={text} has "
            f"{len(mean)} numbers; give one a channel, as normalize=MEAN/STD"
        )
    return mean, std


def _bounds(spec: str, text: str) -> tuple[float, float]:
    numbers = _numbers(text)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise InputError(
            f"model {spec!r}: bounds={text} are not LOW,HIGH; write them as bounds=0,255"
        )
    return numbers[0], numbers[1]


def _numbers(text: str) -> Numbers:
    """The numbers of a text with commas between them; none if one of them is not a number."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
