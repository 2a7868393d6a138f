"""Names and loads attacks, models, data, threats and the rest: through entry points only."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any
from urllib.parse import unquote

from robustbench_lite.attack import Plan
from robustbench_lite.data import Dataset, Split
from robustbench_lite.defense import Defense
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.stream import Stream
from robustbench_lite.threat import Threat

DataSource = Callable[[Split, str, Mapping[str, str]], Dataset | Stream]


class Kind(StrEnum):
    """What can be registered; the entry-point group is `robustbench_lite.` and this."""

    ATTACKS = "attacks"
    DEFENSES = "defenses"
    MODELS = "models"
    DATA = "data"
    ARCHITECTURES = "architectures"
    THREATS = "threats"
    SUITES = "suites"


@cache
def registered(kind: Kind) -> Mapping[str, EntryPoint]:
    """Every registered name of a kind.

    Raises:
        InputError: two distributions claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"robustbench_lite.{kind}"):
        known = found.get(point.name)
        if known is not None and known.value != point.value:
            raise InputError(
                f"{kind}: {point.name!r} is registered by both {known.value} and {point.value}; "
                "uninstall one of the two packages"
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def find(kind: Kind, name: str) -> Any:
    """The object behind a name.

    Raises:
        InputError: nobody registered the name (the message gives the nearest ones), or its
            package cannot be imported.
    """
    points = registered(kind)
    if name not in points:
        raise unknown(str(kind).removesuffix("s"), name, points)
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{kind}: {name!r} ({points[name].value}) cannot be imported: {error}; reinstall it"
        ) from error


def _configured(cls: type, name: str, values: Mapping[str, object]) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise unknown(f"setting of {name!r}", key, known)
    try:
        return cls(**values)
    except (TypeError, InputError) as error:
        raise InputError(f"setting of {name!r}: {error}; see rbl show {name}") from error


def load_attack(name: str, **fields: object) -> Plan:
    """The attack or plan registered under `name`, with some fields set.

    `library:NAME`, as torchattacks:CW, is an attack of another library.

    Args:
        name: one that `rbl list attacks` shows.
        fields: the attack's hyper-parameters, as `steps=100`; texts are read as on the command
            line. The others keep their defaults.

    Returns:
        A value that `evaluate` takes.

    Raises:
        InputError: no such attack or field, or a value of the wrong type.
    """
    prefix, colon, argument = name.partition(":")
    found = find(Kind.ATTACKS, prefix)
    if isinstance(found, Plan):
        if fields or colon:
            key = next(iter(fields), argument)
            raise InputError(
                f"{prefix!r} is a fixed plan and takes no {key!r}; see rbl show {prefix}"
            )
        return found
    if inspect.isclass(found):
        if colon:
            raise InputError(f"attack {prefix!r} takes nothing after a colon; write {prefix}")
        attack: Plan = _configured(found, name, fields)
        return attack
    library: Callable[[str, Mapping[str, object]], Plan] = found
    if not argument:
        raise InputError(f"{prefix!r} needs the name of one of its attacks; write {prefix}:NAME")
    return library(argument, fields)


def load_threat(name: str, **fields: object) -> Threat:
    """The threat without a norm that is registered under `name`, with some fields set.

    Args:
        name: one that `rbl list threats` shows.
        fields: what it is made with, as `area=0.1`; the others keep their defaults.

    Returns:
        A value that `evaluate` takes.

    Raises:
        InputError: no such threat or field, or a value of the wrong type.
    """
    threat: Threat = _configured(find(Kind.THREATS, name), name, fields)
    return threat


def load_defense(spec: str, **fields: object) -> Defense:
    """The defense registered under a name, with some fields set, also as `jpeg?quality=50`.

    Args:
        spec: a name that `rbl list defenses` shows, perhaps with settings behind a question mark.
        fields: more settings, none of which the spec has already.

    Returns:
        A `Training`, which is trained in, or a `Wrapping`, whose `wrap` takes a classifier.

    Raises:
        InputError: no such defense or field, or a value of the wrong type.
    """
    name, values = settings_of("defense", spec)
    for key in fields.keys() & values:
        raise InputError(f"defense {spec!r} gives {key!r} twice; give it once")
    defense: Defense = _configured(find(Kind.DEFENSES, name), name, values | fields)
    return defense


def settings_of(kind: str, spec: str, mark: str = "?") -> tuple[str, dict[str, str]]:
    """The name and the settings of a text such as `jpeg?quality=50&...`.

    Values may be percent-encoded, which an ampersand in one has to be.

    Raises:
        InputError: a setting is not written as KEY=VALUE, or comes twice.
    """
    name, _, query = spec.partition(mark)
    values: dict[str, str] = {}
    for setting in filter(None, query.split("&")):
        key, equals, value = setting.partition("=")
        if not equals or not key or key in values:
            raise InputError(
                f"{kind} {spec!r}: {setting!r} is not one KEY=VALUE each; "
                f"write it as {name}{mark}key=value&other=value"
            )
        values[key] = unquote(value, errors="surrogateescape")
    return name, values


def open_data(spec: str, split: Split = Split.TEST) -> Dataset | Stream:
    """The data of a name such as `digits`, `npz:PATH` or `folder:PATH?size=64`.

    Args:
        spec: as for `load_data`.
        split: the part to learn from, or the part to measure on.

    Returns:
        A Stream where images are read when they are needed, else a Dataset.

    Raises:
        InputError: no such data, or it cannot be read.
    """
    name, _, argument = spec.partition(":")
    source: DataSource = find(Kind.DATA, name)
    if argument and os.path.exists(argument):  # noqa: PTH110 - pathlib fails on long names
        return source(split, argument, {})
    return source(split, *settings_of("data", argument))


def load_data(spec: str, split: Split = Split.TEST) -> Dataset:
    """The data of a name such as `digits` or `npz:PATH`, all in memory.

    Args:
        spec: a source that `rbl list data` shows, what it is to read, and settings, as
            `folder:PATH?size=64`.
        split: the part to learn from, or the part to measure on.

    Returns:
        Images (N, C, H, W) in [0, 1] with labels (N,).

    Raises:
        InputError: no such data, or it cannot be read.
    """
    data = open_data(spec, split)
    return data if isinstance(data, Dataset) else data.load()
