"""What stands for a class in folders and tables, as a label."""

import re
from collections.abc import Sequence

from robustbench_lite.errors import InputError

_WHOLE = re.compile(r"[0-9]+")
_LARGEST = 99_999  # more classes than any data set has; larger numbers are names, as dates


def are_numbers(texts: Sequence[str]) -> bool:
    """Are all texts whole numbers that can be labels?"""
    return all(_WHOLE.fullmatch(text) and int(text[:99]) <= _LARGEST for text in texts)


def labels_of(texts: Sequence[str], where: str) -> tuple[list[int], tuple[str, ...] | None]:
    """The label of each text, and the names of the classes.

    Whole numbers are the labels themselves, without names. Anything else are names of classes, in
    the order of their text.

    Raises:
        InputError: all are whole numbers, but some are negative; the message names `where`.
    """
    known = sorted(set(texts))
    if are_numbers(known):
        return [int(text) for text in texts], None
    if are_numbers([text.removeprefix("-") for text in known]):
        raise InputError(f"{where} has the negative label {known[0]}; labels start at 0")
    number_of = {text: label for label, text in enumerate(known)}
    return [number_of[text] for text in texts], tuple(known)
