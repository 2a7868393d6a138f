"""`rbl leaderboard` and `rbl compare`: what a folder of results says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustbench_lite.leaderboard import Board

Folder = Annotated[Path, typer.Argument(help="A folder that rbl bench wrote.")]
SuiteName = Annotated[
    str | None, typer.Option("--suite", help="Only this suite.", show_default="all")
]
DataName = Annotated[
    str | None, typer.Option("--data", "-d", help="Only this data set.", show_default="all")
]


class Format(StrEnum):
    """How tables are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    MARKDOWN = "markdown"
    LATEX = "latex"
    HTML = "html"


def leaderboard(
    folder: Folder,
    suite: SuiteName = None,
    data: DataName = None,
    style: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = (
        Format.TABLE
    ),
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write to this file.", show_default="the terminal"),
    ] = None,
    no_time: Annotated[
        bool,
        typer.Option("--no-time", help="Leave out what the clock decides: the rest never differs."),
    ] = False,
) -> None:
    """Rank the models of a folder by their worst case, with ties where chance may decide."""
    files.check_writable(out, "--out")
    if style is Format.TABLE and out is not None:
        raise InputError("--format table is for the terminal; give csv, markdown or another one")

    from robustbench_lite.cli import boards as tables

    boards = chosen(folder, suite, data)
    if style is Format.TABLE:
        tables.show(boards, time=not no_time)
        return
    writers = {
        Format.CSV: tables.as_csv,
        Format.JSON: tables.as_json,
        Format.MARKDOWN: tables.as_markdown,
        Format.LATEX: tables.as_latex,
    }
    if style is Format.HTML:
        from robustbench_lite.cli.plot import as_page

        text = as_page(boards, time=not no_time)
    else:
        text = writers[style](boards, time=not no_time)
    if out is None:
        typer.echo(text, nl=False)
    else:
        files.write_whole({out: text.encode()})


def chosen(folder: Path, suite: str | None, data: str | None) -> Sequence[Board]:
    """The leaderboards of a folder, or those of one suite and data set.

    Raises:
        InputError: there are none.
    """
    from robustbench_lite.leaderboard import boards_in
    from robustbench_lite.store import Store

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that rbl bench wrote")
    every = boards_in(Store(folder))
    fitting = [b for b in every if suite in (None, b.suite) and data in (None, b.data)]
    if not fitting:
        known = ", ".join(dict.fromkeys(f"{b.suite} on {b.data}" for b in every))
        raise InputError(f"{folder} has nothing of that suite and data; there is {known}")
    return fitting


def compare(
    a: Annotated[str, typer.Argument(help="A model of the folder.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    folder: Annotated[
        Path, typer.Option("--runs", "-r", help="A folder that rbl bench wrote.")
    ] = Path("runs"),
    suite: SuiteName = None,
    data: DataName = None,
    show: Annotated[int, typer.Option("--show", help="Flipped samples to name.")] = 10,
) -> None:
    """How much less robust is B than A, sample by sample, and can chance explain it?"""
    from rich.table import Table

    from robustbench_lite.cli import boards as tables
    from robustbench_lite.cli import screen
    from robustbench_lite.comparison import compared

    boards = [
        board for board in chosen(folder, suite, data) if {a, b} <= {r.model for r in board.rows}
    ]
    if not boards:
        raise InputError(f"{a} and {b} are not on one leaderboard in {folder}; run both in a suite")
    for board in boards:
        found = compared(board, a, b)
        table = Table(box=None, pad_edge=False)
        table.add_column("what", no_wrap=True)
        heads = ("A %", "B %", "drop", "95 % CI", "only A", "only B", "p")
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for pair in found.pairs:
            low, high = pair.ci95
            table.add_row(
                pair.name,
                screen.percent(pair.before),
                screen.percent(pair.after),
                f"{100 * pair.drop:+.1f}",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
                str(pair.lost),
                str(pair.gained),
                f"{pair.p:.2g}",
            )
        out = screen.console()
        screen.show_table(f"{tables.title(board)}\nA {a}, B {b}", table)
        for name, samples in (("A", found.only_a), ("B", found.only_b)):
            if samples and show:
                more = ", ..." if len(samples) > show else ""
                out.print(
                    f"robust with {name} only: {', '.join(samples[:show])}{more}", soft_wrap=True
                )
