"""Files that number samples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from robustbench_lite.errors import InputError

_WHOLE = re.compile(r"[0-9]{1,9}")


def text_of(path: Path, kind: str) -> str:
    """What a text file says; InputError calls it by its kind."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{kind} {path} cannot be read ({error}); give a text file") from error


def numbers_of(indices: Path) -> list[int]:
    """The numbers in a text file, a line each, in a JSON list or in a .npy file.

    Raises:
        InputError: it cannot be read, or holds something else than whole numbers.
    """
    return _array(indices) if indices.suffix.lower() == ".npy" else _numbers(indices)


def _array(indices: Path) -> list[int]:
    try:
        array = np.load(indices, allow_pickle=False)
    except Exception as error:  # numpy has many for a damaged file
        raise InputError(
            f"indices {indices} cannot be read as npy ({error}); save whole numbers with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"indices {indices} is not one row of whole numbers; save it so")
    numbers: list[int] = array.tolist()
    return numbers


def _numbers(indices: Path) -> list[int]:
    text = text_of(indices, "indices")
    entries: list[tuple[str, object]]
    if text.lstrip().startswith("["):
        try:
            entries = [(f"entry {i}", entry) for i, entry in enumerate(json.loads(text))]
        except (ValueError, RecursionError) as error:
            raise InputError(f"indices {indices} is no JSON list ({error}); correct it") from error
    else:
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        entries = [
            (f"line {i}", int(line) if _WHOLE.fullmatch(line) else line)
            for i, line in enumerate(lines, 1)
            if line
        ]
    numbers = []
    for where, entry in entries:
        if not isinstance(entry, int) or isinstance(entry, bool):
            raise InputError(
                f"indices {indices}: {where} is {str(entry)[:40]!r}, no whole number from 0; "
                "give one a line"
            )
        numbers.append(entry)
    return numbers
