"""Docstrings are plain text with code between backticks: nothing else in them is markup."""

import re

from prose import with_options_as_code
from sphinx.application import Sphinx

_LIMITS = re.compile(r"Annotated\[([\w.| ]+), FieldInfo\(.*?\)\]\)\]")
_BULLET = re.compile(r"( *[*-] )?(.*)", re.S)


def _as_plain(line: str) -> str:
    """The line with stars, bars and trailing underscores escaped outside of code."""
    bullet, text = _BULLET.fullmatch(line).groups()
    parts = re.split(r"(`[^`]*`)", with_options_as_code(text))
    plain = [part if part.startswith("`") else _escaped(part) for part in parts]
    return (bullet or "") + "".join(plain)


def _escaped(text: str) -> str:
    return re.sub(r"_(?=[^\w]|$)", r"\\_", re.sub(r"([*|])", r"\\\1", text))


def _docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    lines[:] = [_as_plain(line) for line in lines]


def _signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Types without the limits of their values, which a setting's error tells."""
    return signature and _LIMITS.sub(r"\1", signature), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
