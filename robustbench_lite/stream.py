"""Labelled images that are read when they are needed, so that a million never sit in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustbench_lite.data import Dataset, drawn
from robustbench_lite.errors import InputError
from robustbench_lite.pixels import ANY, View, tensor_of

_BYTES = 128 * 2**20  # of float images in a part
_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class Stream:
    """Labelled images, in files or behind any object that gives them one by one.

    Args:
        name: what tables call it.
        names: what each image is called, as its path in a folder: in errors, and for drawing `n`.
        read: from an image's number to the image and its label; the label is not looked at where
            `labels` tells it.
        labels: of each image, where they are known without reading.
        classes: class names, if known.
        view: how the images are brought into one shape.
        rows: the numbers of the images that belong to it, in order; all of them if None.
    """

    name: str
    names: Sequence[str]
    read: Callable[[int], tuple[Image.Image | Tensor | np.ndarray, int]]
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] | None = None
    view: View = ANY
    rows: tuple[int, ...] | None = None

    @classmethod
    def of(cls, source: Any, name: str = "data", view: View | None = None) -> Stream:
        """Any object with a length whose items are (image, label), as torch's map-style datasets.

        Images are tensors or arrays, uint8 or floats in [0, 1], or PIL's. Labels are whole numbers;
        where the object has `targets`, as torchvision's, they are known without reading. Items are
        asked for one after the other: few such objects can be asked by several threads.

        Args:
            source: the object.
            name: what tables call it.
            view: how the images are brought into one shape.

        Raises:
            InputError: it has no length, or `targets` are not whole numbers, one an item.
        """
        try:
            names = [str(i) for i in range(len(source))]
        except TypeError:
            raise InputError(
                f"data {name!r}: {type(source).__name__} has no length; "
                "give a map-style dataset, whose items have numbers"
            ) from None
        labels = _targets_of(source, name, len(names))
        classes = getattr(source, "classes", None)
        told = isinstance(classes, (list, tuple)) and all(isinstance(c, str) for c in classes)
        turn = threading.Lock()

        def read(i: int) -> tuple[Any, int]:
            with turn:
                item = source[i]
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise InputError(
                    f"data {name!r}: item {i} is {type(item).__name__}, not (image, label); "
                    "wrap the dataset so that it gives pairs"
                )
            label = _whole(item[1], f"data {name!r}: item {i}")
            if labels is not None and label != labels[i]:
                raise InputError(
                    f"data {name!r}: item {i} has label {label}, but .targets says {labels[i]}; "
                    "make them agree"
                )
            return item[0], label

        return cls(
            name,
            names,
            read,
            labels,
            classes=tuple(classes) if told and classes else None,
            view=view or ANY,
        )

    def __len__(self) -> int:
        return len(self.names) if self.rows is None else len(self.rows)

    @cached_property
    def _rows(self) -> Sequence[int]:
        return range(len(self.names)) if self.rows is None else self.rows

    def known(self) -> list[int] | None:
        """The label of each image, if they are known without reading."""
        return None if self.labels is None else [self.labels[i] for i in self._rows]

    def take(self, which: Sequence[int]) -> Stream:
        """The images at the given positions."""
        return replace(self, rows=tuple(self._rows[i] for i in which))

    def sample(self, n: int, seed: int = 0, *, stratified: bool = False) -> Stream:
        """`n` images: those with the least hash of (seed, name), in their present order.

        Args:
            n: how many.
            seed: which.
            stratified: of every class a part that is as large as its part of the whole.

        Raises:
            InputError: n is below 1, or labels are not known without reading all images.
        """
        if stratified and self.labels is None:
            raise InputError(
                f"data {self.name!r} tells labels only with the images; leave out --stratified"
            )
        labels = self.known() if stratified else None
        return self.take(drawn([self.names[i] for i in self._rows], n, seed, labels))

    def seen_as(self, channels: int, size: int, crop: float, interpolation: str) -> Stream:
        """The images as a model takes them, as far as the data do not say otherwise."""
        wished = View(channels, size, crop, interpolation)
        return replace(self, view=self.view.or_else(wished))

    def relabelled(self, number_of: Mapping[int, int], classes: tuple[str, ...] | None) -> Stream:
        """The images whose label is in `number_of`, with the label that stands there.

        Where labels are known only with the images, one that is not there is an InputError.
        """
        inner, known = self.read, self.labels

        def read(i: int) -> tuple[Any, int]:
            image, label = inner(i)
            if known is None and label not in number_of:
                raise InputError(
                    f"data {self.name!r}: image {self.names[i]} has label {label}, which is no "
                    "class of the model's; name it, too, in --class-map"
                )
            return image, number_of.get(label if known is None else known[i], -1)

        if known is None:
            return replace(self, read=read, classes=classes)
        rows = tuple(i for i in self._rows if known[i] in number_of)
        labels = [number_of.get(label, -1) for label in known]
        return replace(self, read=read, labels=labels, classes=classes, rows=rows)

    def small(self) -> bool:
        """Can all images be in memory at once (128 MiB)? The first one tells."""
        return len(self) * self._bytes() <= _BYTES

    def load(self) -> Dataset:
        """All images, in memory.

        Raises:
            InputError: an image cannot be read, or they differ in shape.
        """
        return self._load(range(len(self)))

    def parts(self) -> Iterator[Dataset]:
        """All images, some at a time (128 MiB).

        Raises:
            InputError: as `load` does.
        """
        count = max(1, _BYTES // self._bytes())
        for first in range(0, len(self), count):
            yield self._load(range(first, min(first + count, len(self))))

    def among(self, ids: Sequence[str]) -> Dataset:
        """The samples with these content ids, or ids that begin so, in the order of the data.

        Raises:
            InputError: none of them is there, or as `load` does.
        """
        wanted = tuple(ids)
        found = [
            part.take(rows)
            for part in self.parts()
            if (rows := [i for i, sample in enumerate(part.ids) if sample.startswith(wanted)])
        ]
        if not found:
            raise InputError(
                f"data {self.name!r} has none of the samples asked for; give the same data"
            )
        x, y = torch.cat([d.x for d in found]), torch.cat([d.y for d in found])
        return Dataset(x, y, self.name, self.classes)

    def _bytes(self) -> int:
        """Of the first image, as floats."""
        return 4 * self._first[0].numel()

    @cached_property
    def _first(self) -> tuple[Tensor, int]:
        if not len(self):
            raise InputError(f"data {self.name!r} is empty; give at least one image")
        return self._one(self._rows[0])

    def _one(self, i: int) -> tuple[Tensor, int]:
        image, label = self.read(i)
        known = label if self.labels is None else self.labels[i]
        return tensor_of(image, self.view, self.names[i]), known

    def _load(self, places: range) -> Dataset:
        shape = self._first[0].shape
        x = torch.empty(len(places), *shape)

        def fill(place: int) -> int:
            i = self._rows[place]
            image, label = self._one(i)
            if image.shape != shape:
                raise self._uneven(image, i)
            x[place - places.start] = image
            return label

        with ThreadPoolExecutor(_READERS) as readers:
            y = list(readers.map(fill, places))
        return Dataset(x, torch.tensor(y), self.name, self.classes)

    def _uneven(self, image: Tensor, i: int) -> InputError:
        first = self._first[0]
        key = "size=224" if image.shape[1:] != first.shape[1:] else "channels=3"
        has, other = (" x ".join(map(str, some.shape)) for some in (first, image))
        return InputError(
            f"data {self.name!r}: image {self.names[self._rows[0]]} is {has}, but {self.names[i]} "
            f"is {other}; bring them into one shape with ?{key} behind the data"
        )


def _targets_of(source: Any, name: str, n: int) -> list[int] | None:
    """The labels of a dataset that tells them."""
    targets = getattr(source, "targets", None)
    if targets is None or getattr(source, "target_transform", None) is not None:
        return None
    labels = [_whole(target, f"data {name!r}: .targets") for target in targets]
    if len(labels) != n:
        raise InputError(f"data {name!r} has {n} items, but {len(labels)} .targets; give one each")
    return labels


def _whole(label: Any, where: str) -> int:
    """A label as a number.

    Raises:
        InputError: it is no whole number, is negative, or larger than any label.
    """
    number = isinstance(label, (int, np.integer, np.ndarray, Tensor))
    array = np.asarray(label.cpu() if isinstance(label, Tensor) else label if number else "")
    if array.size != 1 or array.dtype.kind not in "iu" or not 0 <= int(array.item()) < 2**31:
        raise InputError(f"{where}: label {label!r} is not one whole number of 0 or more")
    return int(array.item())
