"""What the terminal shows: one progress line, one table."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from robustbench_lite.cli import interrupt
from robustbench_lite.trust import Trust

if TYPE_CHECKING:
    from rich.text import Text

    from robustbench_lite.results import Outcome
    from robustbench_lite.running import Progress as Stand
    from robustbench_lite.threat import Threat
    from robustbench_lite.train import Progress as Lesson
    from robustbench_lite.trust import Doubt

_PLAIN_EVERY = 10.0


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


@contextmanager
def watching(title: str) -> Iterator[Callable[[Stand], None]]:
    """A progress bar on stderr; a line every ten seconds where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _plain(title)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[left]} left, {task.fields[robust]} robust so far"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(title, total=None, left="-", robust="-")

        def show(stand: Stand) -> None:
            left = stand.total - stand.done
            bar.update(
                task, total=stand.total, completed=stand.done, left=left, robust=stand.robust
            )

        yield show


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that counts samples; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.completed} of {task.total}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A line on stderr while something of unknown length runs; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with interrupt.before_leaving(_clear_line), Console(stderr=True).status(title):
        yield


def _clear_line() -> str:
    os.write(2, b"\r\x1b[2K\x1b[?25h")  # and show the cursor that the bar has hidden
    return ""


def _plain(title: str) -> Callable[[Stand], None]:
    last = time.monotonic()

    def show(stand: Stand) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY:
            last = time.monotonic()
            sys.stderr.write(
                f"{title}: {stand.total - stand.done} left, {stand.robust} robust so far\n"
            )

    return show


@contextmanager
def training(title: str) -> Iterator[Callable[[Lesson], None]]:
    """A progress bar on stderr; a line an epoch where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _plain_training(title)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("epoch {task.fields[epoch]}, loss {task.fields[loss]}{task.fields[held]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(title, total=1.0, epoch="-", loss="-", held="")

        def show(lesson: Lesson) -> None:
            bar.update(
                task,
                completed=lesson.done,
                epoch=f"{lesson.epoch}/{lesson.epochs}",
                loss=f"{lesson.loss:.3f}",
            )
            if lesson.clean is not None:
                bar.update(task, held=_held_out(lesson))
            if lesson.stopped:
                bar.console.print(f"{title}: stopped, {lesson.stopped}", markup=False)

        yield show


def _held_out(lesson: Lesson) -> str:
    if lesson.clean is None or lesson.robust is None:
        return ""
    return f", held out: clean {percent(lesson.clean)} %, robust {percent(lesson.robust)} %"


def _plain_training(title: str) -> Callable[[Lesson], None]:
    shown = 0

    def show(lesson: Lesson) -> None:
        nonlocal shown
        if lesson.epoch > shown and lesson.epoch_over:
            shown = lesson.epoch
            sys.stderr.write(
                f"{title}: epoch {lesson.epoch} of {lesson.epochs}, loss {lesson.loss:.3f}"
                f"{_held_out(lesson)}\n"
            )
            if lesson.stopped:
                sys.stderr.write(f"{title}: stopped, {lesson.stopped}\n")

    return show


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


def show_doubts(outcomes: Sequence[Outcome]) -> None:
    """The reasons not to trust the figures, each once and of which models where there are more."""
    models = {o.model for o in outcomes}
    whose: dict[Doubt, dict[str, None]] = {}
    for outcome in outcomes:
        for doubt in outcome.doubts:
            whose.setdefault(doubt, {})[outcome.model] = None
    for doubt, names in whose.items():
        told = f"{', '.join(names)}: " if len(models) > 1 else ""
        style = "bold red" if doubt.trust is Trust.FAIL else "yellow"
        console().print(f"{doubt.trust}: {told}{doubt}", style=style, soft_wrap=True)
