"""What a notebook shows of a leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from robustbench_lite.displays import marks, words

if TYPE_CHECKING:
    from robustbench_lite.leaderboard import Board
    from robustbench_lite.score import Row
    from robustbench_lite.trust import Doubt

_TIES = "= : an exact McNemar test, Holm-corrected, cannot tell models of one rank apart"


def html(board: Board) -> str:
    """One row a model, the most robust first; ties, gaps and doubts below."""
    shared = Counter(row.rank for row in board.rows if row.rank is not None)
    trials = [str(trial["name"]) for trial in board.trials]
    each = [f"{name} %" for name in trials] if len(trials) > 1 else []
    head = ("rank", "model", "clean %", "robust %", "95 % CI", "", *each)
    remarks = [_TIES] if any(count > 1 for count in shared.values()) else []
    remarks += [
        f"{row.model}: {row.missing} samples have no result yet"
        for row in board.rows
        if row.missing
    ]
    return marks.box(
        marks.headline(board.suite, _what(board)),
        marks.table(
            (*head, "trust", "mean size", "queries", "seconds"),
            (_cells(row, shared, len(each)) for row in board.rows),
            left=frozenset({1}),
        ),
        *map(marks.remark, remarks),
        marks.doubts(_whose(board.rows)),
    )


def _what(board: Board) -> str:
    of = {str(trial["threat"]) for trial in board.trials}
    threat = f", {next(iter(of))}" if len(of) == 1 else ""
    precision = "" if board.precision == "float32" else f", {board.precision}"
    return f" on {board.data}, {board.n} samples{threat}, seed {board.seed}{precision}"


def _cells(row: Row, shared: Counter[int], trials: int) -> tuple[str, ...]:
    rank = "-" if row.rank is None else f"{row.rank}{'=' if shared[row.rank] > 1 else ''}"
    each = [score.robust_accuracy for score in row.scores] if trials else []
    return (
        marks.text(rank),
        marks.text(row.model, strong=True),
        marks.text(words.percent(row.clean_accuracy)),
        marks.text(words.percent(row.robust_accuracy), strong=True),
        marks.text(words.interval(*row.robust_ci95)),
        marks.bar(row.robust_accuracy, row.robust_ci95),
        *(marks.text(words.percent(value)) for value in each),
        marks.trust(row.trust),
        marks.text(words.size(row.mean_size)),
        marks.text(f"{row.queries:.1f}"),
        marks.text(f"{row.seconds:.1f}"),
    )


def _whose(rows: Sequence[Row]) -> Iterable[tuple[Doubt, str]]:
    """Each doubt once, with the models that it is about."""
    names: dict[Doubt, list[str]] = {}
    for row in rows:
        for doubt in row.doubts:
            names.setdefault(doubt, []).append(row.model)
    return ((doubt, ", ".join(models)) for doubt, models in names.items())
