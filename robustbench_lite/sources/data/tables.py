"""Images that a table names or holds: csv, parquet, and the data sets of Hugging Face."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from csv import Error, reader
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from robustbench_lite.data import Split
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import VIEW, checked_settings, told, view_of
from robustbench_lite.sources.data.columns import parquet_rows
from robustbench_lite.sources.data.folder import is_file, read_image
from robustbench_lite.sources.data.hub import hub_dataset
from robustbench_lite.sources.data.labels import labels_of
from robustbench_lite.stream import Stream

_PATHS = ("path", "file", "filename", "image")
_LABELS = ("label", "class", "target")
_SPLIT = re.compile(r"(train|test|validation|valid|val)(?![a-z])")
_SHARDS = {Split.TRAIN: ("train",), Split.TEST: ("test", "validation", "valid", "val")}


def csv(split: Split, argument: str, settings: Mapping[str, str]) -> Stream:
    """A table in a .csv file: a column of paths of images, and one of their labels.

    A first line may name the columns: path, file, filename or image, and label, class or target;
    path=NAME and label=NAME choose others. Paths start at the folder of the file. Labels are whole
    numbers, or names of classes, which are numbered in the order of their text.

    Other settings: size, channels, crop and interpolation, as for folder.
    """
    spec = f"csv:{argument}"
    checked_settings(spec, settings, (*VIEW, "path", "label"))
    view = view_of(spec, settings)
    file = Path(argument)
    if not argument or not file.is_file():
        raise InputError(f"data file {file} does not exist; check the path behind csv:")
    lines = _lines(file)
    if not lines:
        raise InputError(f"data file {file} is empty; write a line path,label for each image")
    path, label, first = _columns(file, lines[0][1], settings)
    named, texts = _named(file, lines[first:], len(lines[0][1]), path, label)
    labels, classes = labels_of(texts, f"data file {file}")
    paths = [os.fspath(file.parent / name) for name in named]
    return Stream(f"csv:{file.name}", named, _Files(paths, labels), labels, classes, view)


@dataclass(frozen=True)
class _Files:
    paths: Sequence[str]
    labels: Sequence[int]

    def __call__(self, i: int) -> tuple[Image.Image, int]:
        return read_image(self.paths[i]), self.labels[i]


def _lines(file: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of the line that it ends in."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = reader(text, strict=True)
            return [(rows.line_num, [cell.strip() for cell in row]) for row in rows if row]
    except (OSError, UnicodeDecodeError, Error) as error:
        raise InputError(
            f"data file {file} cannot be read as csv ({error}); save it as UTF-8 text with commas"
        ) from error


def _columns(file: Path, head: list[str], settings: Mapping[str, str]) -> tuple[int, int, int]:
    """The columns of paths and labels, and how many rows the names of columns take."""
    names = [name.lower() for name in head]
    wanted = {"path": _PATHS, "label": _LABELS}
    found = {}
    for key, usual in wanted.items():
        if key in settings:
            if settings[key] not in head:
                raise InputError(
                    f"data file {file} has no column {settings[key]!r}; its first line names "
                    f"{told(head)}"
                )
            found[key] = head.index(settings[key])
        else:
            there = [name for name in usual if name in names]
            if there:
                found[key] = names.index(there[0])
    if len(found) == 2 and found["path"] != found["label"]:
        return found["path"], found["label"], 1
    if not found and len(head) == 2:
        return 0, 1, 0
    raise InputError(
        f"data file {file}: which columns of {told(head)} are path and label is not clear; "
        "choose with ?path=NAME&label=NAME"
    )


def _named(
    file: Path, lines: Sequence[tuple[int, list[str]]], width: int, path: int, label: int
) -> tuple[list[str], list[str]]:
    """Paths and labels.

    Raises:
        InputError: there are none, or lines are wrong; all of these are told.
    """
    seen: dict[str, tuple[int, str]] = {}
    wrong = []
    for number, row in lines:
        if len(row) != width:
            wrong.append(f"line {number} has {len(row)} columns, not {width}")
            continue
        name, text = row[path], row[label]
        if not name or not text:
            wrong.append(f"line {number} lacks the {'label' if name else 'path'}")
        elif not is_file(file.parent / name):
            wrong.append(f"line {number}: there is no file {name!r}")
        elif seen.setdefault(name, (number, text))[1] != text:
            wrong.append(f"line {number} gives {name!r} another label than line {seen[name][0]}")
    if wrong:
        raise InputError(f"data file {file}: {told(wrong)}; correct these lines")
    if not lines:
        raise InputError(f"data file {file} names no image; write a line path,label for each")
    return [row[path] for _, row in lines], [row[label] for _, row in lines]


def parquet(split: Split, argument: str, settings: Mapping[str, str]) -> Stream:
    """A .parquet file, or a folder of them, with a column of images and one of their labels.

    Images are files' bytes, alone or as Hugging Face stores them; image=NAME and label=NAME choose
    the columns. Where files are called train..., test... or validation..., the split chooses. One
    row group is read at a time.

    Other settings: size, channels, crop and interpolation, as for folder.
    """
    spec = f"parquet:{argument}"
    checked_settings(spec, settings, (*VIEW, "image", "label"))
    view = view_of(spec, settings)
    path = Path(argument)
    if not argument or not path.exists():
        raise InputError(f"data {path} do not exist; check the path behind parquet:")
    files = _shards(path, split) if path.is_dir() else [path]
    rows = parquet_rows(path, files, settings.get("image", ""), settings.get("label", ""))
    name = f"parquet:{path.resolve().name}"
    return Stream(name, rows.names, rows, rows.labels, rows.classes, view)


def _shards(path: Path, split: Split) -> list[Path]:
    inside = (file for file in path.rglob("*.parquet") if file.is_file())
    files = [
        f
        for f in sorted(inside)
        if not any(part.startswith(".") for part in f.relative_to(path).parts)
    ]
    if not files:
        raise InputError(f"data folder {path} holds no .parquet file; check the path")
    part_of = {file: match[1] for file in files if (match := _SPLIT.match(file.name))}
    if not part_of:
        return files
    for part in _SHARDS[split]:
        chosen = [file for file in files if part_of.get(file) == part]
        if chosen:
            return chosen
    raise InputError(
        f"data folder {path} holds {told(f.name for f in files)}, but no file {split}...; "
        "name one file"
    )


def hf(split: Split, argument: str, settings: Mapping[str, str]) -> Stream:
    """A data set of Hugging Face's hub, or one on this disk: NAME@REVISION#SPLIT, or PATH#SPLIT.

    Without #SPLIT it is test or validation. A folder is one of save_to_disk, or of files that
    Hugging Face's datasets can read. image=NAME and label=NAME choose the columns, config=NAME one
    of several data sets under one name. Data are downloaded once; code is never run.

    Other settings: size, channels, crop and interpolation, as for folder.
    """
    spec = f"hf:{argument}"
    checked_settings(spec, settings, (*VIEW, "image", "label", "config"))
    view = view_of(spec, settings)
    if not argument:
        raise InputError("data 'hf' needs a data set; write hf:NAME@REVISION#SPLIT")
    name, part = argument, ""
    if not Path(argument).exists():
        name, _, part = argument.partition("#")
    revision = ""
    if not Path(name).exists():
        name, _, revision = name.partition("@")
    rows = hub_dataset(name, revision, part, split, settings)
    return Stream(f"hf:{name}", rows.names, rows, rows.labels, rows.classes, view)
