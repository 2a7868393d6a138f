"""`rbl plot`: the page's charts and its gallery as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robustbench_lite.cli import files, names_of
from robustbench_lite.cli.leaderboard import DataName, Folder, SuiteName, chosen
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from robustbench_lite.leaderboard import Board
    from robustbench_lite.page.report import Board as Shown

_BEST = 5  # models that a chart shows unless others are asked for
_EXAMPLES = 12


class Picture(StrEnum):
    """What is drawn."""

    CURVE = "curve"
    QUERIES = "queries"
    CLASSES = "classes"
    CONFUSION = "confusion"
    GALLERY = "gallery"


def plot(
    what: Annotated[Picture, typer.Argument(help="What to draw.")],
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png, .svg or .pdf file.")],
    models: Annotated[
        str | None,
        typer.Option(
            "--models", "-m", help="Names, separated by commas.", show_default="the best 5"
        ),
    ] = None,
    suite: SuiteName = None,
    data: DataName = None,
) -> None:
    """Draw robust accuracy over eps or queries, by class, where attacks push, or examples."""
    files.check_writable(out, "--out")
    kind = _kind(out, what)

    from dataclasses import replace

    from robustbench_lite.figures import report_of

    boards = chosen(folder, suite, data)
    if len(boards) > 1:
        known = "; ".join(f"--suite {b.suite} --data {b.data}" for b in boards)
        raise InputError(f"{folder} has several leaderboards; give one of {known}")
    (board,) = boards
    names = [row.model for row in board.rows][:_BEST]
    if models is not None:
        names = [board.row(name).model for name in names_of.split(models, "--models")]
    asked = replace(board, rows=tuple(board.row(name) for name in names))
    (shown,) = report_of([asked]).boards
    files.write_whole({out: _drawn(what, shown, kind)})


def _kind(out: Path, what: Picture) -> Literal["png", "svg", "pdf"]:
    match out.suffix.lower():
        case ".png":
            return "png"
        case ".pdf":
            return "pdf"
        case ".svg" if what is not Picture.GALLERY:
            return "svg"
    possible = ".png or .pdf" if what is Picture.GALLERY else ".png, .svg or .pdf"
    raise InputError(f"--out {out} has no kind of picture in its name; end it in {possible}")


def as_page(boards: Sequence[Board], *, time: bool) -> str:
    """One HTML file with everything."""
    from robustbench_lite.figures import report_of
    from robustbench_lite.page import page

    title = "Robustness leaderboard"
    command = "rbl leaderboard --format html"
    return page(report_of(boards, title=title, command=command, clock=time))


def _drawn(what: Picture, board: Shown, kind: Literal["png", "svg", "pdf"]) -> bytes:
    from robustbench_lite.page import charts
    from robustbench_lite.page.gallery import gallery_image

    entries, file = list(board.entries), BytesIO()
    if what is Picture.GALLERY:
        if not board.gallery:
            raise InputError("no adversarial examples are kept of these models; name others")
        gallery_image(board.gallery[:_EXAMPLES], board.classes).save(file, kind.upper())
        return file.getvalue()
    if what is Picture.CURVE:
        entries = [entry for entry in entries if entry.curve is not None]
    if what is Picture.QUERIES:
        entries = [entry for entry in entries if entry.by_queries is not None]
    if not entries:
        needed = {
            Picture.CURVE: "an attack that shrinks perturbations, as fmn in suite linf",
            Picture.QUERIES: "an attack without gradients, as in suite blackbox",
        }
        raise InputError(f"there is no such curve here; it takes {needed[what]}")
    if what is Picture.CONFUSION and len(entries) > 1:
        raise InputError("a confusion is of one model; name it with --models")
    chart = {
        Picture.CURVE: lambda: charts.curve_chart(entries),
        Picture.QUERIES: lambda: charts.queries_chart(entries),
        Picture.CLASSES: lambda: charts.class_chart(entries, board.classes),
        Picture.CONFUSION: lambda: charts.confusion_chart(entries[0], board.classes),
    }[what]()
    if kind == "svg":
        text = StringIO()
        chart.save(text, format=kind)
        return text.getvalue().encode()
    chart.save(file, format=kind, scale_factor=2 if kind == "png" else 1)
    return file.getvalue()
