"""The figures of a leaderboard as JSON's types, for files, pages and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustbench_lite.leaderboard import Board
from robustbench_lite.score import Bools, Row, Score
from robustbench_lite.stats import wilson

_POINTS = 60  # of a curve: as many as a picture of a page's width shows


def board_figures(board: Board) -> dict[str, Any]:
    """All figures of a leaderboard; without the time where the clock is not to matter, see below.

    Shares are between 0 and 1. Time is the only figure that another run does not repeat.
    """
    return {
        "suite": board.suite,
        "summary": board.summary,
        "data": board.data,
        "n": board.n,
        "seed": board.seed,
        "precision": board.precision,
        "classes": list(board.classes),
        "versions": dict(board.versions),
        "trials": [{k: t[k] for k in ("name", "attack", "threat")} for t in board.trials],
        "entries": [row_figures(row) for row in board.rows],
    }


def row_figures(row: Row) -> dict[str, Any]:
    """All figures of one model."""
    return {
        "rank": row.rank,
        "model": row.model,
        "digest": row.digest,
        "summary": row.card.get("summary", ""),
        "parameters": row.card.get("parameters"),
        "clean": row.clean_accuracy,
        "clean_ci": list(row.clean_ci95),
        "robust": row.robust_accuracy,
        "robust_ci": list(row.robust_ci95),
        "attacks": {score.name: _score_figures(score) for score in row.scores},
        "mean_size": row.mean_size,
        "auc": row.area,
        "mce": row.mce,
        "queries": row.queries,
        "seconds": row.seconds,
        "trust": str(row.trust),
        "doubts": [str(doubt) for doubt in row.doubts],
        "missing": row.missing,
        "card": row.card,
    }


def _score_figures(score: Score) -> dict[str, Any]:
    return {
        "robust": score.robust_accuracy,
        "ci": list(score.robust_ci95),
        "mean_size": score.mean_size,
        "queries": score.mean_queries,
    }


def curve(row: Row) -> dict[str, list[float]] | None:
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
    return {"eps": grid.tolist()} | _with_band(left, len(size))


def over_queries(row: Row) -> dict[str, list[float]] | None:
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
    return {"queries": grid.tolist()} | _with_band(left, len(at))


def _with_band(left: list[int], n: int) -> dict[str, list[float]]:
    bands = [wilson(count, n) for count in left]
    return {
        "robust": [count / n for count in left],
        "low": [low for low, _ in bands],
        "high": [high for _, high in bands],
    }


def by_class(row: Row) -> list[dict[str, Any]]:
    """Clean and robust accuracy of each class."""
    label = row.scores[0].label
    return [
        {
            "label": int(c),
            "n": int(of.sum()),
            "clean": float(row.correct[of].mean()),
            "robust": float(row.robust[of].mean()),
        }
        for c in np.unique(label[row.known])
        if (of := _of_class(row, c)).any()
    ]


def _of_class(row: Row, label: int) -> Bools:
    members: Bools = row.known & (row.scores[0].label == label)
    return members


def confusion(row: Row) -> list[dict[str, int]]:
    """Where attacks push: how many samples of a class ended in which other one."""
    counts: dict[tuple[int, int], int] = {}
    taken = np.zeros(len(row.known), bool)
    for score in row.scores:  # each sample once: by the first trial that broke it
        new = score.correct & ~score.robust & (score.reached >= 0) & ~taken
        taken |= new
        for pair in zip(score.label[new].tolist(), score.reached[new].tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    return [{"from": a, "to": b, "count": c} for (a, b), c in sorted(counts.items())]


def gallery(row: Row) -> list[dict[str, Any]]:
    """The adversarial examples that were kept, each with model and trial."""
    return [
        {"model": row.model, "trial": score.name, "to": example["reached"]}
        | {k: example[k] for k in ("id", "label", "size", "image", "adversarial")}
        for score in row.scores
        for example in score.examples
    ]
