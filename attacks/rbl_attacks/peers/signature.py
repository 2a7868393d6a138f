"""What a function of another library can be told, and the texts of --set as its types."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from typing import Any

from robustbench_lite.errors import InputError, unknown

Setting = bool | int | float | str | tuple[int | float, ...] | None

_NUMBER = re.compile(r"\b(int|float)\b")
_TEXT = re.compile(r"\b(str|Literal)\b")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Every parameter that can be given by name."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    every = inspect.signature(function).parameters
    return {name: each for name, each in every.items() if each.kind in named}


def checked(
    owner: str,
    parameters: Mapping[str, Parameter],
    reserved: Collection[str],
    given: Mapping[str, object],
) -> dict[str, Setting]:
    """The values of `given` in the types of the parameters.

    Args:
        owner: whose parameters they are, for the message.
        parameters: of the function to be called.
        reserved: names that follow from the threat, the goal, the seed and the model.
        given: the user's values, texts or not.

    Raises:
        InputError: no such parameter, one that may not be given, or a value of another type.
    """
    readers = {
        name: reader
        for name, each in parameters.items()
        if name not in reserved and (reader := _reader_of(each)) is not None
    }
    found = {}
    for key, value in given.items():
        if key in reserved and key in parameters:
            raise InputError(
                f"{key!r} of {owner} follows from the threat, the goal, the seed or the model; "
                "leave it out"
            )
        if key not in readers:
            if not readers:
                raise InputError(f"{owner} has no setting {key!r} nor any other; leave it out")
            raise unknown(f"setting of {owner}", key, readers)
        read, wanted = readers[key]
        try:
            found[key] = read(value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise InputError(f"{key} of {owner} is {value!r}; give {wanted}") from error
    return found


def scaled_default(parameters: Mapping[str, Parameter], name: str, by: str, value: float) -> float:
    """The default of `name` times the ratio of `value` to the default of `by`."""
    return float(parameters[name].default * value / parameters[by].default)


_Reader = tuple[Callable[[object], Setting], str]


def _reader_of(parameter: Parameter) -> _Reader | None:
    """How to read a value, and what to ask for; None where no text can stand for one."""
    default, note = parameter.default, str(parameter.annotation)
    reader: _Reader | None = None
    if "Callable" in note:
        return None
    if isinstance(default, bool) or note in ("bool", "<class 'bool'>"):
        reader = _truth, "true or false"
    elif isinstance(default, tuple):
        reader = _numbers, "numbers with commas between them"
    elif note in ("int", "<class 'int'>"):
        reader = _whole, "a whole number"
    elif isinstance(default, int | float) or _NUMBER.search(note):
        reader = _number, "a number"
    elif isinstance(default, str) or _TEXT.search(note):
        reader = _text, "a text"
    if reader is not None and (default is None or "None" in note or "Optional" in note):
        read, wanted = reader
        return (lambda value: None if value in (None, "none", "None") else read(value)), wanted
    return reader


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError(value)


def _number(value: object) -> int | float:
    """A number, or a text such as 10, 1e-3 or 8/255."""
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        if slash:
            return float(above) / float(below)
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(value)
    return value


def _whole(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _numbers(value: object) -> tuple[int | float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError(value)
    return tuple(_number(part) for part in parts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
