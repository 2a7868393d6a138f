"""Labelled images in [0, 1] with ids that depend on their content only."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.errors import InputError


class Split(StrEnum):
    """Which part of a data set: what a model may learn from, or what it is measured on."""

    TRAIN = "train"
    TEST = "test"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels.

    Args:
        x: (N, C, H, W) images, float in [0, 1] or uint8; a numpy array or a tensor.
        y: (N,) integer labels, 0 or larger.
        name: what tables call it.
        classes: class names, if known.

    Raises:
        InputError: it is empty, shapes do not fit, a value is NaN or outside [0, 1], or a label is
            negative or not an integer.
    """

    x: Tensor
    y: Tensor
    name: str = "data"
    classes: tuple[str, ...] | None = None
    ids: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        x, y = torch.as_tensor(self.x), torch.as_tensor(self.y)
        images = _checked_images(x, self.name)
        labels = _checked_labels(y, len(images), self.name)
        object.__setattr__(self, "x", images)
        object.__setattr__(self, "y", labels)
        object.__setattr__(self, "ids", _ids(images, labels))
        if self.classes is not None and int(labels.max()) >= len(self.classes):
            raise InputError(
                f"data {self.name!r}: label {int(labels.max())} has no name among "
                f"{len(self.classes)} classes; name every class"
            )

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: Sequence[int] | Tensor) -> "Dataset":
        """The samples at the given positions, as a new data set."""
        index = torch.as_tensor(which, dtype=torch.long)
        return Dataset(self.x[index], self.y[index], self.name, self.classes)

    def without(self, other: "Dataset") -> "Dataset":
        """The samples whose image is not an image of `other`, compared exactly."""
        banned = {_digest(image) for image in other.x}
        return self.take([i for i, image in enumerate(self.x) if _digest(image) not in banned])

    def each_class(self, n: int, seed: int = 0) -> "Dataset":
        """`n` samples of each class, those with the least hash, in their present order.

        Raises:
            InputError: a class has fewer.
        """
        rank: Counter[int] = Counter()
        chosen = []
        order = sorted(range(len(self)), key=lambda i: rank_of(seed, self.ids[i]))
        for i in order:
            label = int(self.y[i])
            if rank[label] < n:
                chosen.append(i)
            rank[label] += 1
        short = min(rank, key=lambda label: rank[label])
        if rank[short] < n:
            raise InputError(
                f"data {self.name!r} has {rank[short]} samples of class {short}; "
                f"{n} a class are too many"
            )
        return self.take(sorted(chosen))

    def sample(self, n: int, seed: int = 0, *, stratified: bool = False) -> "Dataset":
        """`n` samples: those with the least hash of (seed, id), in their present order.

        Which samples are drawn depends on their content, not on their position.

        Args:
            n: how many.
            seed: which.
            stratified: of every class a part that is as large as its part of the whole.

        Raises:
            InputError: n is below 1.
        """
        return self.take(drawn(self.ids, n, seed, self.y.tolist() if stratified else None))

    def relabelled(
        self, number_of: Mapping[int, int], classes: tuple[str, ...] | None
    ) -> "Dataset":
        """The samples whose label is in `number_of`, with the label that stands there.

        Raises:
            InputError: no sample is left.
        """
        labels = self.y.tolist()
        kept = [i for i, label in enumerate(labels) if label in number_of]
        y = torch.tensor([number_of[labels[i]] for i in kept], dtype=torch.int64)
        return Dataset(self.x[kept], y, self.name, classes)


def drawn(
    names: Sequence[str], n: int, seed: int, labels: Sequence[int] | None = None
) -> list[int]:
    """The positions of the `n` names with the least hash, in order.

    Args:
        names: of samples.
        n: how many.
        seed: which.
        labels: if given, of every class a part that is as large as its part of the whole (largest
            remainders; ties to the lower label).

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"n is {n}; evaluate 1 sample or more")
    ranked = sorted(range(len(names)), key=lambda i: rank_of(seed, names[i]))
    if labels is None or n >= len(names):
        return sorted(ranked[:n])
    counts = Counter(labels)
    shares = {label: divmod(n * count, len(names)) for label, count in counts.items()}
    left = n - sum(whole for whole, _ in shares.values())
    lucky = sorted(shares, key=lambda label: (-shares[label][1], label))[:left]
    room = {label: whole + (label in lucky) for label, (whole, _) in shares.items()}
    chosen = []
    for i in ranked:
        if room[labels[i]]:
            room[labels[i]] -= 1
            chosen.append(i)
    return sorted(chosen)


def rank_of(seed: int, sample_id: str) -> bytes:
    """What samples are drawn by: the least come first."""
    return hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest()


def _digest(image: Tensor) -> str:
    content = np.ascontiguousarray(image.numpy())
    return hashlib.blake2b(
        content.tobytes() + str(content.shape).encode(), digest_size=8
    ).hexdigest()


def _ids(x: Tensor, y: Tensor) -> tuple[str, ...]:
    """Content ids; the second and later copies of one labelled image get `.1`, `.2`, ..."""
    seen: Counter[str] = Counter()
    ids = []
    for image, label in zip(x, y.tolist(), strict=True):
        base = f"{_digest(image)}-{label}"
        ids.append(f"{base}.{seen[base]}" if seen[base] else base)
        seen[base] += 1
    return tuple(ids)


def content_of(sample_id: str) -> str:
    """The part of an id that equal samples share."""
    return sample_id.partition(".")[0]


def _checked_images(x: Tensor, name: str) -> Tensor:
    if x.ndim != 4:
        raise InputError(
            f"data {name!r}: images have shape {tuple(x.shape)}; give (N, channels, rows, columns)"
        )
    if x.numel() == 0:
        raise InputError(f"data {name!r} is empty; give at least one image")
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise InputError(
            f"data {name!r}: images have type {x.dtype}; give uint8 or floats in [0, 1]"
        )
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"data {name!r} has NaN or infinite pixels; remove or repair those images")
    low, high = float(x.min()), float(x.max())
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255" if low >= 0 and high <= 255 else "undo the normalisation"
        raise InputError(
            f"data {name!r}: pixels span {low:.4g} to {high:.4g}, not 0 to 1; {hint} "
            "(normalisation belongs in Classifier(mean=..., std=...))"
        )
    return x.float().clamp(0, 1).contiguous()


def _checked_labels(y: Tensor, n: int, name: str) -> Tensor:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.shape != (n,):
        raise InputError(
            f"data {name!r}: labels have shape {tuple(y.shape)} and type {y.dtype}; "
            f"give {n} integers, one an image"
        )
    y = y.long()
    if int(y.min()) < 0:
        raise InputError(f"data {name!r} has the negative label {int(y.min())}; labels start at 0")
    return y


def checked_for(data: Dataset, classes: int) -> None:
    """Raise InputError if a label is not one of the model's `classes` outputs."""
    largest = int(data.y.max())
    if largest >= classes:
        raise InputError(
            f"data {data.name!r} has label {largest}, but the model knows {classes} classes "
            f"(0 to {classes - 1}); check that model and data belong together"
        )


def from_arrays(x: np.ndarray, y: np.ndarray, name: str, where: str | Path) -> Dataset:
    """A data set of arrays as files hold them: uint8 or float; NHWC, NHW or NCHW.

    Raises:
        InputError: shapes or types fit none of these; the message names `where`.
    """
    if y.dtype.kind not in "iu" or not (x.dtype.kind == "f" or x.dtype == np.uint8):
        raise InputError(
            f"{where}: x is {x.dtype} and y is {y.dtype}; "
            "save x as uint8 or as floats in [0, 1], y as integers"
        )
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"{where}: x has shape {x.shape} and y {y.shape}; "
            "give x as (N, rows, columns, channels) or (N, rows, columns) and y as (N,)"
        )
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
    return Dataset(
        torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)), name
    )
