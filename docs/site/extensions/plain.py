"""Docstrings are plain text with code between backticks: nothing else in them is markup."""

import re

from sphinx.application import Sphinx

_BULLET = re.compile(r"( *[*-] )?(.*)", re.S)


def _as_plain(line: str) -> str:
    """The line with stars, bars and trailing underscores escaped outside of code."""
    bullet, text = _BULLET.fullmatch(line).groups()
    parts = re.split(r"(`[^`]*`)", text)
    plain = [part if part.startswith("`") else _escaped(part) for part in parts]
    return (bullet or "") + "".join(plain)


def _escaped(text: str) -> str:
    return re.sub(r"_(?=[^\w]|$)", r"\\_", re.sub(r"([*|])", r"\\\1", text))


def _docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    lines[:] = [_as_plain(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
