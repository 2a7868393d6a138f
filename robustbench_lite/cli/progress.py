"""What stderr shows while something runs: one line, or one every ten seconds in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from robustbench_lite.cli import interrupt
from robustbench_lite.cli.screen import percent

if TYPE_CHECKING:
    from robustbench_lite.run import Stand as Share
    from robustbench_lite.running import Progress as Stand
    from robustbench_lite.train import Progress as Lesson

_PLAIN_EVERY = 10.0


def _bar(told: ProgressColumn) -> Progress:
    """A bar on stderr that goes away at the end."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        told,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@contextmanager
def watching(title: str) -> Iterator[Callable[[Stand], None]]:
    """A progress bar on stderr; a line every ten seconds where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _plain(title)
        return
    bar = _bar(TextColumn("{task.fields[left]} left, {task.fields[robust]} robust so far"))
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
    bar = _bar(TextColumn("{task.completed} of {task.total}"))
    with interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def fetching(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for the bytes of files that are fetched; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar = _bar(DownloadColumn())
    with interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(f"fetching {title}", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A line on stderr while something of unknown length runs; nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with interrupt.before_leaving(_clear_line), Console(stderr=True).status(title):
        yield


@contextmanager
def working(title: str) -> Iterator[Callable[[Share], None]]:
    """A bar over units of work; a line every ten seconds where stderr is not a terminal."""
    stand: Share | None = None

    def kept() -> str:
        return f"{stand.done if stand else 0} units are stored; start again to go on"

    if not sys.stderr.isatty():
        last = time.monotonic()

        def tell(now: Share) -> None:
            nonlocal last, stand
            stand = now
            if time.monotonic() - last >= _PLAIN_EVERY:
                last = time.monotonic()
                sys.stderr.write(f"{title}: {now.done} of {now.total} units done\n")

        with interrupt.before_leaving(kept):
            yield tell
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.completed} of {task.total} units  {task.fields[now]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with interrupt.before_leaving(kept), interrupt.before_leaving(_clear_line), bar:
        task = bar.add_task(title, total=None, now="")

        def show(now: Share) -> None:
            nonlocal stand
            stand = now
            bar.update(task, total=now.total, completed=now.done, now=now.at_work)

        yield show


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
