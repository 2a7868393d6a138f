"""Figures as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustbench_lite.threat import Threat


def percent(value: float) -> str:
    """A share as a percentage with one digit."""
    return f"{100 * value:.1f}"


def interval(low: float, high: float) -> str:
    """A 95 % interval in percent."""
    return f"{100 * low:.1f}-{100 * high:.1f}"


def size(value: float | None) -> str:
    """A distance with three significant digits, or a dash."""
    return "-" if value is None else f"{value:#.3g}"


def distance(threat: Threat) -> str:
    """A threat for people: `linf 8/255`, `l2 0.5`."""
    from robustbench_lite.threat import Lp

    if not isinstance(threat, Lp):
        return str(threat)
    levels = threat.eps * 255
    if 0 < threat.eps < 0.2 and abs(levels - round(levels)) < 1e-6:
        return f"{threat.norm} {round(levels)}/255"
    return f"{threat.norm} {threat.eps:g}"


def limits(threat: Threat) -> str:
    """What may be asked, where that is not everything: `, scores only, 500 queries at most`."""
    from robustbench_lite.threat import Access

    seen = "" if threat.access is Access.GRADIENTS else f", {threat.access.name.lower()} only"
    return seen + ("" if threat.queries is None else f", {threat.queries} queries at most")
