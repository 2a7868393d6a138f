"""HTML from plain texts: every text is escaped, and colours are those of the page around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from robustbench_lite.displays.words import interval, percent
from robustbench_lite.trust import Doubt, Trust

_CELL = "padding:0.15em 0.7em;text-align:{side};vertical-align:top"
_LAYER = "position:absolute;top:0;bottom:0;background:currentColor;"


def box(*parts: str) -> str:
    """Parts below each other, as wide as there is room; what is wider scrolls by itself."""
    return f'<div style="overflow-x:auto">{"".join(parts)}</div>'


def headline(name: str, rest: str = "") -> str:
    """A name in bold and what there is to say of it."""
    return f'<p style="margin:0.3em 0"><strong>{escape(name)}</strong>{escape(rest)}</p>'


def remark(text: str) -> str:
    """A line below the figures."""
    return f'<p style="margin:0.3em 0;opacity:0.8">{escape(text)}</p>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, left: frozenset[int] = frozenset({0})
) -> str:
    """A table of cells that are HTML already.

    Args:
        head: texts of the header; no header if empty.
        rows: cells made by `text`, `share` or `bar`.
        left: numbers of the columns that stand to the left.
    """
    top = "".join(_cell("th", escape(name), place in left) for place, name in enumerate(head))
    body = "".join(
        f"<tr>{''.join(_cell('td', cell, place in left) for place, cell in enumerate(row))}</tr>"
        for row in rows
    )
    header = f"<thead><tr>{top}</tr></thead>" if head else ""
    style = "border-collapse:collapse;margin:0.3em 0"
    return f'<table style="{style}">{header}<tbody>{body}</tbody></table>'


def text(value: object, *, strong: bool = False) -> str:
    """A cell, or a part of one."""
    told = escape(str(value))
    return f"<strong>{told}</strong>" if strong else told


def share(value: float) -> str:
    """A share in percent."""
    return f"{percent(value)} %"


def bar(value: float, ends: tuple[float, float]) -> str:
    """A share between 0 and 1 as a tick, its 95 % interval as a band; for those who see it."""
    low, high = ends
    label = escape(f"{percent(value)} %, 95 % interval {interval(low, high)}")
    layers = (
        f"{_LAYER}left:0;right:0;opacity:0.12",
        f"{_LAYER}left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%;opacity:0.4",
        f"{_LAYER}left:calc({100 * value:.2f}% - 1px);width:2px",
    )
    inner = "".join(f'<span style="{layer}"></span>' for layer in layers)
    style = "display:inline-block;position:relative;width:10em;height:0.8em"
    return f'<span role="img" aria-label="{label}" style="{style}">{inner}</span>'


def trust(value: Trust) -> str:
    """ok, or what else in bold."""
    return text(value, strong=value is not Trust.OK)


def doubts(found: Iterable[tuple[Doubt, str]]) -> str:
    """The reasons not to trust the figures, each with whom it is about (nobody if empty)."""
    lines = [
        f"<li>{text(doubt.trust, strong=True)}: {text(f'{whose}: ' if whose else '')}"
        f"{text(doubt)}</li>"
        for doubt, whose in found
    ]
    return f'<ul style="margin:0.3em 0">{"".join(lines)}</ul>' if lines else ""


def _cell(tag: str, content: str, to_the_left: bool) -> str:
    side = "left" if to_the_left else "right;white-space:nowrap"
    return f'<{tag} style="{_CELL.format(side=side)}">{content}</{tag}>'
