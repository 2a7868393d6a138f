"""What the text that names a model says: where it comes from, its settings, the defenses behind it.

mnist-cnn                              registered
file.safetensors                       written by `rbl train`, its card beside it
SOURCE:NAME?KEY=VALUE&...              from elsewhere, as timm:resnet18?num_classes=10
file.py:factory, package.module:name   made by Python
http://...#KEY=VALUE&...               asked over the network
...+jpeg?quality=50+bit-depth          behind defenses, in this order
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from robustbench_lite.errors import InputError, unknown
from robustbench_lite.registry import Kind, find, registered, settings_of

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def source_of(spec: str) -> tuple[str | None, str, str]:
    """The source of a spec (None: one of our files), what it is called with, the settings' mark."""
    name, colon, argument = spec.partition(":")
    if name in ("http", "https"):
        return "http", spec, "#"
    if is_source(name):
        return name, argument, "?"
    if colon and (name.endswith(".py") or _MODULE.fullmatch(name)):
        return "python", spec, "?"
    if colon and not os.path.isfile(spec):  # noqa: PTH113 - pathlib fails on long names
        raise unknown("source of models", name, filter(is_source, registered(Kind.MODELS)))
    return None, "", ""


def with_settings(spec: str, values: Mapping[str, str]) -> str:
    """The spec of a model from elsewhere with more settings.

    Raises:
        InputError: it is not from elsewhere, or has one of the settings already.
    """
    base, defenses = parts_of(spec)
    name, argument, mark = source_of(base)
    if name is None:
        raise InputError(
            f"model {base!r} comes with all that it needs; "
            f"{', '.join(values)} are for models from elsewhere, as timm:resnet18"
        )
    known = settings_of("model", argument, mark)[1]
    for key in known.keys() & values:
        raise InputError(f"model {spec!r} has {key}={known[key]} already; give it once")
    more = "&".join(
        f"{key}={quote(value, '/,:. ', None, 'surrogateescape')}" for key, value in values.items()
    )
    glue = "" if base.endswith(mark) else "&" if mark in base else mark
    return "+".join([f"{base}{glue}{more}", *defenses])


def is_source(name: str) -> bool:
    """Does a registered name load models from elsewhere, as SOURCE:NAME?"""
    return name in registered(Kind.MODELS) and callable(find(Kind.MODELS, name))


def parts_of(spec: str) -> tuple[str, list[str]]:
    """The model and the defenses of a spec; a file's name or an address may have plus signs."""
    first, *rest = spec.split("+")
    if first in registered(Kind.MODELS):
        return first, rest
    defenses: list[str] = []
    while "+" in spec and not os.path.isfile(spec):  # noqa: PTH113 - pathlib fails on long names
        base, _, last = spec.rpartition("+")
        if last.partition("?")[0] not in registered(Kind.DEFENSES):
            break
        spec, defenses = base, [last, *defenses]
    return spec, defenses
