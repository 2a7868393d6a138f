"""Which class of the model each class of the data is, and which samples are meant."""

from __future__ import annotations

import csv
import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.indices import numbers_of, text_of
from robustbench_lite.stream import Stream

Data = TypeVar("Data", Dataset, Stream)

_WHOLE = re.compile(r"[0-9]{1,9}")
_APART = re.compile(r"[\s_-]+")
_HEADS = (
    {"data", "class", "name", "label", "from"},
    {"model", "class", "name", "label", "to"},
)
_TOLD = 5


def matched(data: Data, names: tuple[str, ...] | None, count: int, given: Path | None) -> Data:
    """The data with the model's labels.

    Without a file, classes go by their names where both sides have them; case, spaces, hyphens and
    underscores do not count, and one of several names, as in `tench, Tinca tinca`, is enough. If
    the model knows none of the names, but as many classes, the order counts. Data whose classes
    have no names, or are called by their numbers, keep their labels.

    With a file, what it does not name is left out of the data.

    Args:
        data: with labels of its own, and perhaps names of its classes.
        names: of the model's classes, if known.
        count: how many classes the model has, 0 if nobody knows.
        given: --class-map, a file that says which class is which: a JSON object, or a CSV of two
            columns. Names or labels of the data first, then names or labels of the model.

    Raises:
        InputError: classes of the data have no counterpart, or the file cannot be used.
    """
    size = count or len(names or ())
    if given is not None:
        number_of = _given(data, names, size, given)
        return _relabelled(data, number_of, names, given)
    named = _named(data)
    if not named or names is None or data.classes == names:
        if named and not _are_numbers(named) and size not in (0, len(data.classes or ())):
            raise InputError(
                f"data {data.name!r} has {len(data.classes or ())} classes ({_few(named.values())})"
                f", but the model has {size} without names; say which is which with --class-map"
            )
        _check_labels(data, count)
        return data
    found = {label: _places(name, names) for label, name in named.items()}
    if len(data.classes or ()) == len(names) and all(i in places for i, places in found.items()):
        return data.relabelled({label: label for label in named}, names)
    for label, places in found.items():
        if len(places) > 1:
            fitting = _few(repr(names[i]) for i in places)
            raise InputError(
                f"data {data.name!r}: class {named[label]!r} may be {fitting} of the model; "
                "say which with --class-map"
            )
    lost = [named[label] for label, places in found.items() if not places]
    if not lost:
        return _by_name(data, named, {label: p[0] for label, p in found.items()}, names)
    if len(lost) == len(named) and (_are_numbers(named) or len(data.classes or ()) == len(names)):
        _check_labels(data, count)
        return data
    near = difflib.get_close_matches(lost[0], names, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(
        f"data {data.name!r}: the model has no class called {_few(map(repr, lost))}{hint}; "
        "rename these, or say which is which with --class-map"
    )


def _named(data: Dataset | Stream) -> dict[int, str]:
    """The names of the classes of the data that have samples, or may have some."""
    if data.classes is None:
        return {}
    known = _labels(data)
    labels = range(len(data.classes)) if known is None else sorted(set(known))
    return {label: data.classes[label] for label in labels if label < len(data.classes)}


def _labels(data: Dataset | Stream) -> Sequence[int] | None:
    if isinstance(data, Dataset):
        labels: list[int] = data.y.tolist()
        return labels
    return data.known()


def _are_numbers(named: Mapping[int, str]) -> bool:
    """Is every class called by its label?"""
    return all(_WHOLE.fullmatch(name) and int(name) == label for label, name in named.items())


def _plain(name: str) -> str:
    return _APART.sub(" ", unicodedata.normalize("NFC", name).casefold()).strip()


def _places(name: str, names: Sequence[str]) -> list[int]:
    """The classes of the model that a name may mean: the same name first, then one of several."""
    for same in (str, _plain):
        wanted = same(name)
        whole = [i for i, other in enumerate(names) if same(other) == wanted]
        if whole:
            return whole
    parts = _parts(name)
    return [i for i, other in enumerate(names) if parts & _parts(other)]


def _parts(name: str) -> set[str]:
    return {_plain(part) for part in name.split(",")} - {""}


def _by_name(
    data: Data, named: Mapping[int, str], number_of: Mapping[int, int], names: tuple[str, ...]
) -> Data:
    first: dict[int, int] = {}
    for label, number in number_of.items():
        if first.setdefault(number, label) != label:
            raise InputError(
                f"data {data.name!r}: classes {named[first[number]]!r} and {named[label]!r} are "
                f"both {names[number]!r} of the model; say which is which with --class-map"
            )
    return data.relabelled(number_of, names)


def _check_labels(data: Dataset | Stream, size: int) -> None:
    known = _labels(data)
    largest = max(known, default=0) if known else 0
    if size and largest >= size:
        raise InputError(
            f"data {data.name!r} has label {largest}, but the model knows {size} classes "
            f"(0 to {size - 1}); check that model and data belong together, or say which class is "
            "which with --class-map"
        )


def _relabelled(
    data: Data, number_of: Mapping[int, int], names: tuple[str, ...] | None, given: Path
) -> Data:
    known = _labels(data)
    if known is not None and not any(label in number_of for label in known):
        raise InputError(
            f"class map {given} names no class that data {data.name!r} has samples of; "
            "correct it, or leave out --class-map"
        )
    return data.relabelled(number_of, names)


def _given(
    data: Dataset | Stream, names: tuple[str, ...] | None, size: int, given: Path
) -> dict[int, int]:
    """The model's label of each label of the data, as the file says."""
    number_of: dict[int, int] = {}
    for key, value in _pairs(given, data.classes or ()):
        label = _own(key, data, given)
        if label in number_of:
            raise InputError(f"class map {given} names class {key!r} twice; name it once")
        number_of[label] = _of_model(value, names, size, given)
    if not number_of:
        raise InputError(f"class map {given} is empty; name the model's class of each class")
    return number_of


def _own(key: str, data: Dataset | Stream, given: Path) -> int:
    classes = data.classes or ()
    places = _places(key, classes)
    if len(places) == 1:
        return places[0]
    if not places and _WHOLE.fullmatch(key) and (not classes or int(key) < len(classes)):
        return int(key)
    why = "means several classes" if places else "is no class"
    near = difflib.get_close_matches(key, classes, n=3, cutoff=0.4) or list(classes)
    hint = f"it has {_few(near)}" if near else "its classes have no names: give labels"
    raise InputError(f"class map {given}: {key!r} {why} of data {data.name!r}; {hint}")


def _of_model(value: object, names: tuple[str, ...] | None, size: int, given: Path) -> int:
    if isinstance(value, str):
        places = _places(value, names or ())
        if len(places) == 1:
            return places[0]
        if len(places) > 1 or not _WHOLE.fullmatch(value):
            why = "means several classes" if places else "is no class"
            near = difflib.get_close_matches(value, names or (), n=3, cutoff=0.4)
            hint = f"did you mean {_few(near)}?" if near else "give the number of one"
            raise InputError(f"class map {given}: {value!r} {why} of the model; {hint}")
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < (size or 2**31):
        told = f"0 to {size - 1}" if size else "whole numbers from 0"
        raise InputError(f"class map {given}: {value!r} is no label of the model; it has {told}")
    return value


def _pairs(given: Path, classes: Sequence[str]) -> list[tuple[str, object]]:
    """What a class map says, in order."""
    text = text_of(given, "class map")
    if text.lstrip().startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"class map {given} is no JSON object ({error}); correct it"
            ) from error
        return [(str(key), value) for key, value in pairs]
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise InputError(
            f"class map {given} cannot be read as csv ({error}); correct it"
        ) from error
    for row in rows:
        if len(row) != 2 or not all(row):
            raise InputError(
                f"class map {given}: {','.join(row)!r} is not two columns; give a JSON object, or "
                "a CSV of the data's class and the model's"
            )
    if rows and all(cell.lower() in heads for cell, heads in zip(rows[0], _HEADS, strict=True)):
        rows = rows if _places(rows[0][0], classes) else rows[1:]
    return [(key, value) for key, value in rows]


def _few(things: Iterable[str]) -> str:
    texts = list(things)
    more = len(texts) - _TOLD
    return ", ".join(texts[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def picked(data: Data, indices: Path) -> Data:
    """The samples that a file of --indices names, in its order.

    Args:
        data: of which they are.
        indices: numbers from 0: a text file with one a line, where # begins a comment; a JSON list;
            or a .npy file of whole numbers.

    Raises:
        InputError: the file cannot be used, or there is no such sample.
    """
    numbers = numbers_of(indices)
    if not numbers:
        raise InputError(f"indices {indices} names no sample; give a number a line")
    seen: set[int] = set()
    for number in numbers:
        if not 0 <= number < len(data):
            raise InputError(
                f"indices {indices}: there is no sample {number}; data {data.name!r} has 0 to "
                f"{len(data) - 1}"
            )
        if number in seen:
            raise InputError(f"indices {indices} names sample {number} twice; name it once")
        seen.add(number)
    return data.take(numbers)
