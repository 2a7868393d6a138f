"""The figures of leaderboards, for files, pages and pictures."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np

from robustbench_lite.leaderboard import Board
from robustbench_lite.page import report as told
from robustbench_lite.score import Bools, Row, Score
from robustbench_lite.stats import wilson
from robustbench_lite.trust import least

_SHOWN = 60  # adversarial examples on a page
_POINTS = 60  # of a curve: as many as a picture of a page's width shows


def report_of(
    boards: Sequence[Board], *, title: str = "", command: str = "", clock: bool = True
) -> told.Report:
    """All figures of leaderboards.

    Args:
        boards: which ones.
        title: of the page.
        command: how it was made, for the page.
        clock: tell also what another run does not repeat: times, versions and the date.
    """
    versions = {name: v for board in boards for name, v in board.versions}
    return told.Report(
        title=title,
        made=time.strftime("%Y-%m-%d") if clock else "",
        command=command,
        versions=versions if clock else {},
        boards=[_board(board, clock) for board in boards],
    )


def _board(board: Board, clock: bool) -> told.Board:
    return told.Board(
        suite=board.suite,
        data=board.data,
        n=board.n,
        seed=board.seed,
        trials=[told.Trial(t["name"], t["attack"], t["threat"]) for t in board.trials],
        entries=[entry(row, clock=clock) for row in board.rows],
        classes=board.classes or _numbers(board),
        gallery=gallery(board.rows),
    )


def _numbers(board: Board) -> tuple[str, ...]:
    """The classes' numbers, where they have no names."""
    known = [row.card.get("classes") for row in board.rows]
    most = max((count for count in known if isinstance(count, int)), default=0)
    seen = [int(max(s.label.max(), s.reached.max())) + 1 for r in board.rows for s in r.scores]
    return tuple(str(label) for label in range(max(most, *seen)))


def entry(row: Row, *, clock: bool = True) -> told.Entry:
    """All figures of one model."""
    return told.Entry(
        rank=row.rank,
        model=row.model,
        summary=row.card.get("summary", ""),
        parameters=row.card.get("parameters"),
        clean=row.clean_accuracy,
        clean_ci=row.clean_ci95,
        robust=row.robust_accuracy,
        robust_ci=row.robust_ci95,
        attacks={score.name: _attacked(score) for score in row.scores},
        mean_size=row.mean_size,
        auc=row.area,
        mce=row.mce,
        queries=row.queries,
        seconds=row.seconds if clock else None,
        trust=row.trust,
        doubts=[str(doubt) for doubt in row.doubts],
        missing=row.missing,
        card=row.card | {"digest": row.digest},
        curve=curve(row),
        by_queries=over_queries(row),
        by_class=by_class(row),
        confusion=confusion(row),
    )


def _attacked(score: Score) -> told.Attacked:
    return told.Attacked(
        robust=score.robust_accuracy,
        ci=score.robust_ci95,
        mean_size=score.mean_size,
        queries=score.mean_queries,
        trust=least(score.doubts),
    )


def curve(row: Row) -> told.Curve | None:
    """Robust accuracy over eps with its 95 % band, by the smallest examples of all trials.

    None where no attack shrinks perturbations: then sizes say little of smaller eps.
    """
    eps = row.eps_of(row.minimal) if row.minimal else None
    if not eps or not row.known.any():
        return None
    size = np.where(row.robust, np.inf, row.size)[row.known]
    correct = row.correct[row.known]
    grid = np.linspace(0, eps, _POINTS)
    left = [int((correct & (size > e * (1 + 1e-5))).sum()) for e in grid]
    left[0], left[-1] = int(correct.sum()), int(row.robust[row.known].sum())
    bands = [wilson(count, len(size)) for count in left]
    return told.Curve(
        eps=grid.tolist(),
        robust=[count / len(size) for count in left],
        low=[low for low, _ in bands],
        high=[high for _, high in bands],
    )


def over_queries(row: Row) -> told.Queried | None:
    """Robust accuracy after so many forward passes of an attack that keeps to one eps.

    None where none of the attacks does without gradients.
    """
    blind = [s for s in row.scores if not s.trial["steps"] and not s.trial["minimal"]]
    if not blind or not row.known.any():
        return None
    spent = [np.where(s.correct & ~s.robust, s.queries, np.iinfo(np.int64).max) for s in blind]
    at = np.minimum.reduce(spent)[row.known]
    correct = row.correct[row.known]
    most = max(int(s.queries.max()) for s in blind)
    grid = np.unique(np.geomspace(1, max(2, most), _POINTS).round().astype(int))
    left = [int((correct & (at > queries)).sum()) for queries in grid]
    return told.Queried(queries=grid.tolist(), robust=[count / len(at) for count in left])


def by_class(row: Row) -> list[told.Class]:
    """Clean and robust accuracy of each class."""
    label = row.scores[0].label
    return [
        told.Class(
            label=int(c),
            n=int(of.sum()),
            clean=float(row.correct[of].mean()),
            robust=float(row.robust[of].mean()),
        )
        for c in np.unique(label[row.known])
        if (of := _of_class(row, c)).any()
    ]


def _of_class(row: Row, label: int) -> Bools:
    members: Bools = row.known & (row.scores[0].label == label)
    return members


def confusion(row: Row) -> list[told.Push]:
    """Where attacks push: how many samples of a class ended in which other one."""
    counts: dict[tuple[int, int], int] = {}
    taken = np.zeros(len(row.known), bool)
    for score in row.scores:  # each sample once: by the first trial that broke it
        new = score.correct & ~score.robust & (score.reached >= 0) & ~taken
        taken |= new
        for pair in zip(score.label[new].tolist(), score.reached[new].tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    return [told.Push(a, b, count) for (a, b), count in sorted(counts.items())]


def gallery(rows: Sequence[Row]) -> list[told.Example]:
    """Adversarial examples of each model in turn, each sample of a model once."""
    shown: list[told.Example] = []
    waiting = [_examples(row) for row in rows]
    for turn in itertools.zip_longest(*waiting):
        shown += [example for example in turn if example is not None]
    return shown[:_SHOWN]


def _examples(row: Row) -> list[told.Example]:
    kept = [(score.name, example) for score in row.scores for example in score.examples]
    first = {example["id"]: (trial, example) for trial, example in reversed(kept)}
    return [
        told.Example(
            model=row.model,
            trial=trial,
            id=example["id"],
            label=example["label"],
            to=example["reached"],
            size=example["size"],
            image=example["image"],
            adversarial=example["adversarial"],
        )
        for trial, example in first.values()
    ]
