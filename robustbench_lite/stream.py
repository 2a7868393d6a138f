"""Labelled images that are read when they are needed, so that a million never sit in memory."""

from __future__ import annotations

import os
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

_BYTES = 256 * 2**20  # of float images in a part
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

        Images are tensors (C, H, W) or arrays (H, W, C), uint8 or floats in [0, 1], or PIL's.
        """
        names = [str(i) for i in range(len(source))]
        classes = getattr(source, "classes", None)
        return cls(
            name,
            names,
            lambda i: (source[i][0], int(source[i][1])),
            classes=tuple(map(str, classes)) if classes else None,
            view=view or ANY,
        )

    def __len__(self) -> int:
        return len(self.names) if self.rows is None else len(self.rows)

    @cached_property
    def _rows(self) -> Sequence[int]:
        return range(len(self.names)) if self.rows is None else self.rows

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
        known = self.labels if stratified else None
        labels = None if known is None else [known[i] for i in self._rows]
        return self.take(drawn([self.names[i] for i in self._rows], n, seed, labels))

    def seen_as(self, channels: int, size: int, crop: float, interpolation: str) -> Stream:
        """The images as a model takes them, as far as the data do not say otherwise."""
        wished = View(channels, size, crop, interpolation)
        return replace(self, view=self.view.or_else(wished))

    def relabelled(self, number_of: Mapping[int, int], classes: tuple[str, ...] | None) -> Stream:
        """The images whose label is in `number_of`, with the label that stands there."""
        inner, known = self.read, self.labels

        def read(i: int) -> tuple[Any, int]:
            image, label = inner(i)
            return image, number_of[label if known is None else known[i]]

        if known is None:
            return replace(self, read=read, classes=classes)
        rows = tuple(i for i in self._rows if known[i] in number_of)
        labels = [number_of.get(label, -1) for label in known]
        return replace(self, read=read, labels=labels, classes=classes, rows=rows)

    def small(self) -> bool:
        """Can all images be in memory at once (256 MiB)? The first one tells."""
        return len(self) * 4 * self._load(self._rows[:1]).x.numel() <= _BYTES

    def load(self) -> Dataset:
        """All images, in memory.

        Raises:
            InputError: an image cannot be read, or they differ in shape.
        """
        return self._load(self._rows)

    def parts(self) -> Iterator[Dataset]:
        """All images, some at a time (256 MiB).

        Raises:
            InputError: as `load` does.
        """
        first = 0
        while first < len(self):
            one = self._load(self._rows[first : first + 1])
            count = max(1, _BYTES // (4 * one.x.numel()))
            yield self._load(self._rows[first : first + count])
            first += count

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

    def _load(self, rows: Sequence[int]) -> Dataset:
        if not rows:
            raise InputError(f"data {self.name!r} is empty; give at least one image")

        def one(i: int) -> tuple[Tensor, int]:
            image, label = self.read(i)
            return tensor_of(image, self.view, self.names[i]), label

        with ThreadPoolExecutor(_READERS) as readers:
            images, labels = zip(*readers.map(one, rows), strict=True)
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            told = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)[:2])
            raise InputError(
                f"data {self.name!r} has images of {told}; "
                "bring them into one shape with ?size=224 behind the data"
            )
        y = labels if self.labels is None else [self.labels[i] for i in rows]
        return Dataset(torch.stack(images), torch.tensor(y), self.name, self.classes)
