"""Leaderboards as tables: for the terminal, for files, for papers."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from robustbench_lite.cli import screen
from robustbench_lite.figures import entry, report_of
from robustbench_lite.leaderboard import Board
from robustbench_lite.page.report import plain
from robustbench_lite.score import Row
from robustbench_lite.trust import Trust

T = TypeVar("T")
TIES = "= : an exact McNemar test, Holm-corrected, cannot tell models of one rank apart"


@dataclass(frozen=True)
class Column:
    """A column: its head, what it shows, and how soon it gives way where room is short."""

    head: str
    cell: Callable[[Row], str]
    gives_way: int = 0


def show(boards: Sequence[Board], *, time: bool, partly: bool = False) -> None:
    """Print boards with their doubts."""
    out = screen.console()
    for number, board in enumerate(boards):
        if number:
            out.print()
        columns = columns_of(board, time=time)
        _show_fitting(title(board), columns, board.rows)
        if _ties(board):
            out.print(TIES, style="dim", soft_wrap=True)
        lost = [row for row in board.rows if row.missing]
        for row in lost if not partly else ():
            out.print(f"{row.model}: {row.missing} samples have no result yet", style="yellow")
        if lost and partly:
            out.print("other shards are missing; join their folders with rbl merge", style="dim")
        screen.show_doubts(board.rows)


def title(board: Board) -> str:
    """What was measured."""
    of = {t["threat"] for t in board.trials}
    threats = f", {next(iter(of))}" if len(of) == 1 else ""
    usual = "" if board.precision == "float32" else f", {board.precision}"
    return f"{board.suite} on {board.data}, {board.n} samples{threats}, seed {board.seed}{usual}"


def _ties(board: Board) -> bool:
    return any(count > 1 for rank, count in _shared(board).items() if rank is not None)


def _shared(board: Board) -> Counter[int | None]:
    return Counter(row.rank for row in board.rows)


def columns_of(board: Board, *, time: bool) -> list[Column]:
    """What a board's table shows, from the left."""
    shared = _shared(board)
    rows = board.rows

    def rank(row: Row) -> str:
        return "-" if row.rank is None else f"{row.rank}{'=' if shared[row.rank] > 1 else ' '}"

    columns = [
        Column("rank", rank),
        Column("model", lambda row: row.model),
        Column("clean %", lambda row: screen.percent(row.clean_accuracy)),
        Column("robust %", lambda row: screen.percent(row.robust_accuracy)),
        Column("95 % CI", lambda row: screen.interval(*row.robust_ci95)),
    ]
    if len(board.trials) > 1:
        columns += [
            Column(f"{trial['name']} %", _share_of(place), gives_way=2)
            for place, trial in enumerate(board.trials)
        ]
    if any(row.mce is not None for row in rows):
        columns.append(Column("mCE %", lambda row: _optional(row.mce, screen.percent), 1))
    columns.append(Column("trust", lambda row: str(row.trust)))
    if any(row.mean_size is not None for row in rows):
        columns.append(Column("AUC %", lambda row: _optional(row.area, screen.percent), 1))
        columns.append(Column("mean size", lambda row: screen.size(row.mean_size), 3))
    columns.append(Column("queries", lambda row: f"{row.queries:.1f}", 4))
    columns.append(Column("params", lambda row: _optional(row.card.get("parameters"), str), 5))
    if time:
        columns.append(Column("seconds", lambda row: f"{row.seconds:.1f}", 4))
    return columns


def _share_of(place: int) -> Callable[[Row], str]:
    return lambda row: screen.percent(row.scores[place].robust_accuracy)


def _optional(value: T | None, told: Callable[[T], str]) -> str:
    return "-" if value is None else told(value)


def _show_fitting(name: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print as many columns as the terminal holds; the least needed give way first."""
    kept = list(columns)
    room = screen.console().width
    while True:
        widths = [max(len(c.head), *(len(c.cell(row)) for row in rows)) for c in kept]
        last = max(range(len(kept)), key=lambda i: (kept[i].gives_way, i))
        if sum(widths) + 2 * (len(kept) - 1) <= room or not kept[last].gives_way:
            break
        del kept[last]
    table = Table(box=None, pad_edge=False)
    for column in kept:
        left = column.head == "model"
        table.add_column(column.head, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_styled(column, row) for column in kept))
    screen.show_table(name, table)


def _styled(column: Column, row: Row) -> str | Text:
    return screen.trust(Trust(column.cell(row))) if column.head == "trust" else column.cell(row)


def as_markdown(boards: Sequence[Board], *, time: bool) -> str:
    """Tables for a pull request or a README."""
    parts = []
    for board in boards:
        columns = columns_of(board, time=time)
        lines = [f"### {title(board)}", "", _piped([c.head for c in columns])]
        lines.append(_piped([":--" if c.head == "model" else "--:" for c in columns]))
        lines += [_piped([c.cell(row).strip() for c in columns]) for row in board.rows]
        if _ties(board):
            lines += ["", TIES + "."]
        lines += ["", *(f"* {line}" for line in screen.doubts_told(board.rows))]
        parts.append("\n".join(lines).rstrip() + "\n")
    if time:
        parts.append(_made(boards))
    return "\n".join(parts)


def _made(boards: Sequence[Board]) -> str:
    report = report_of(boards)
    used = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"Made on {report.made} by `rbl leaderboard`, from results of {used}.\n"


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_latex(boards: Sequence[Board], *, time: bool) -> str:
    """Tables for a paper; they need the package booktabs."""
    parts = []
    for board in boards:
        columns = columns_of(board, time=time)
        lines = [
            f"% {title(board)}",
            "\\begin{tabular}{" + "".join("l" if c.head == "model" else "r" for c in columns) + "}",
            "\\toprule",
            " & ".join(_texed(c.head) for c in columns) + " \\\\",
            "\\midrule",
            *(
                " & ".join(_texed(c.cell(row).strip()) for c in columns) + " \\\\"
                for row in board.rows
            ),
            "\\bottomrule",
            "\\end{tabular}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}


def _texed(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def as_json(boards: Sequence[Board], *, time: bool) -> str:
    """All figures, but no pictures."""
    whole = plain(report_of(boards, clock=time))["boards"]
    for board in whole:
        board.pop("gallery")
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def as_csv(boards: Sequence[Board], *, time: bool) -> str:
    """One row a model, shares between 0 and 1, with every digit."""
    rows = []
    for board in boards:
        for row in board.rows:
            told = entry(row)
            flat: dict[str, object] = {
                "suite": board.suite,
                "data": board.data,
                "n": board.n,
                "seed": board.seed,
                "precision": board.precision,
                "rank": told.rank,
                "model": told.model,
                "digest": row.digest,
                "clean": told.clean,
                "clean_low": told.clean_ci[0],
                "clean_high": told.clean_ci[1],
                "robust": told.robust,
                "robust_low": told.robust_ci[0],
                "robust_high": told.robust_ci[1],
            }
            kept = ("mean_size", "auc", "mce", "queries", "trust", "missing", "parameters")
            flat |= {name: getattr(told, name) for name in kept}
            flat |= {"seconds": told.seconds} if time else {}
            rows.append(flat | {f"robust {name}": a.robust for name, a in told.attacks.items()})
    file = io.StringIO()
    heads = list(dict.fromkeys(head for row in rows for head in row))
    writer = csv.DictWriter(file, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
