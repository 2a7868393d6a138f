"""What the terminal shows at the end: one table, and the doubts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from robustbench_lite.displays.words import distance as distance
from robustbench_lite.displays.words import interval as interval
from robustbench_lite.displays.words import percent as percent
from robustbench_lite.displays.words import size as size
from robustbench_lite.trust import Trust

if TYPE_CHECKING:
    from rich.text import Text

    from robustbench_lite.results import Outcome
    from robustbench_lite.trust import Doubt


def console() -> Console:
    """Where results go; names are shown as they are, also with brackets or colons."""
    return Console(highlight=False, markup=False, emoji=False)


def show_table(title: str, table: Table) -> None:
    """Print a title and a table, whole: in a narrow terminal their lines are broken, not cut."""
    for column in table.columns:
        if column.no_wrap:
            texts = (str(cell) for cell in (column.header, *column.cells))
            column.min_width = max(map(cell_len, texts))
    out = console()
    boundless = out.options.update(max_width=10_000)
    out.width = max(out.width, out.measure(table, options=boundless).minimum)
    out.print(title, style="bold", soft_wrap=True)
    out.print(table)


def attack_title(outcome: Outcome, *, curve: bool = False) -> str:
    """What was attacked, and how."""
    from robustbench_lite.threat import Access, Lp

    goal = "" if outcome.goal == "untargeted" else f", {outcome.goal}"
    threat = outcome.threat
    where = f"{threat.norm}" if curve and isinstance(threat, Lp) else distance(threat)
    limits = "" if threat.access is Access.GRADIENTS else f", {threat.access.name.lower()} only"
    if threat.queries is not None:
        limits += f", {threat.queries} queries at most"
    return (
        f"{outcome.model} on {outcome.data}, {outcome.n} samples, "
        f"{where}{limits}{goal}, {numbers_of(outcome)}"
    )


def numbers_of(outcome: Outcome) -> str:
    """Its random numbers, and how they are rounded where that is not the usual way."""
    usual = outcome.precision == "float32"
    return f"seed {outcome.seed}" + ("" if usual else f", {outcome.precision}")


def attack_table(rows: Sequence[tuple[str, Outcome]]) -> Table:
    """One row an attack."""
    table = Table(box=None, pad_edge=False)
    table.add_column("attack", overflow="fold", min_width=10)
    for name in (
        "clean %",
        "robust %",
        "95 % CI",
        "trust",
        "mean size",
        "queries",
        "seconds",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for label, outcome in rows:
        table.add_row(
            label,
            percent(outcome.clean_accuracy),
            percent(outcome.robust_accuracy),
            interval(*outcome.robust_ci95),
            trust(outcome.trust),
            size(outcome.mean_size),
            f"{outcome.queries_per_sample:.1f}",
            f"{outcome.seconds:.1f}",
            style="bold" if label == "worst case" else "",
        )
    return table


def curve_table(
    names: Sequence[str], curves: Sequence[Sequence[Outcome]], worst: Sequence[Outcome]
) -> Table:
    """One row an eps, one column an attack; the interval is that of the worst case."""
    table = Table(box=None, pad_edge=False)
    several = ["worst %"] if len(curves) > 1 else []
    heads = [f"{name} %" for name in names] if several else ["robust %"]
    for head in ("eps", *heads, *several, "95 % CI", "trust", "mean size", "queries", "seconds"):
        table.add_column(head, justify="right", no_wrap=True)
    for at_eps, lowest in zip(zip(*curves, strict=True), worst, strict=True):
        shares = [percent(o.robust_accuracy) for o in (*at_eps, *([lowest] if several else []))]
        label = distance(lowest.threat).partition(" ")[2]
        table.add_row(
            label,
            *shares,
            interval(*lowest.robust_ci95),
            trust(lowest.trust),
            size(lowest.mean_size),
            f"{lowest.queries_per_sample:.1f}",
            f"{lowest.seconds:.1f}",
        )
    return table


def trust(value: Trust) -> Text:
    """ok, or what else in colour."""
    from rich.text import Text

    return Text(str(value), style={"ok": "", "warn": "yellow", "fail": "bold red"}[value])


class Doubted(Protocol):
    """What has doubts: an outcome, or a row of a leaderboard."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Reasons not to trust its figures."""


def show_doubts(found: Sequence[Doubted]) -> None:
    """The reasons not to trust the figures, each once and of which models where there are more."""
    for doubt, text in _each_once(found):
        style = "bold red" if doubt.trust is Trust.FAIL else "yellow"
        console().print(text, style=style, soft_wrap=True)


def doubts_told(found: Sequence[Doubted]) -> list[str]:
    """The same as plain lines."""
    return [text for _, text in _each_once(found)]


def _each_once(found: Sequence[Doubted]) -> Iterable[tuple[Doubt, str]]:
    models = {o.model for o in found}
    whose: dict[Doubt, dict[str, None]] = {}
    for one in found:
        for doubt in one.doubts:
            whose.setdefault(doubt, {})[one.model] = None
    for doubt, names in whose.items():
        told = f"{', '.join(names)}: " if len(models) > 1 else ""
        yield doubt, f"{doubt.trust}: {told}{doubt}"


def note(text: str) -> None:
    """A line on stderr about what is done otherwise than one might expect."""
    sys.stderr.write(f"rbl: {text}\n")
