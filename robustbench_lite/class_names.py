"""Which class of the model each class of the data is, and which samples are meant."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from robustbench_lite.data import Dataset
from robustbench_lite.stream import Stream

Data = TypeVar("Data", Dataset, Stream)


def matched(data: Data, names: tuple[str, ...] | None, count: int, given: Path | None) -> Data:
    """The data with the model's labels.

    Args:
        data: with labels of its own, and perhaps names of its classes.
        names: of the model's classes, if known.
        count: how many classes the model has, 0 if nobody knows.
        given: --class-map, a file that says which class is which.

    Raises:
        InputError: classes of the data have no counterpart, or the file cannot be used.
    """
    return data


def picked(data: Data, indices: Path) -> Data:
    """The samples that a file of --indices names, a number from 0 a line.

    Raises:
        InputError: the file cannot be used, or there is no such sample.
    """
    return data
