"""Models ranked by their worst case, from what a store holds."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from robustbench_lite.errors import InputError
from robustbench_lite.identity import digest
from robustbench_lite.score import Row, Score
from robustbench_lite.stats import pairwise, ranks
from robustbench_lite.store import Store
from robustbench_lite.unit import Found, found_in


@dataclass(frozen=True, eq=False)
class Board:
    """Models that did the same: suite, trials, samples and seed are equal."""

    suite: str
    summary: str
    data: str
    seed: int
    precision: str
    classes: tuple[str, ...]
    samples: tuple[str, ...]
    trials: tuple[dict[str, Any], ...]
    rows: tuple[Row, ...]
    versions: tuple[tuple[str, str], ...] = field(default=())

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def _repr_html_(self) -> str:
        from robustbench_lite.displays.board import html

        return html(self)

    def row(self, model: str) -> Row:
        """The row of a model.

        Raises:
            InputError: there is none.
        """
        for row in self.rows:
            if row.model == model:
                return row
        known = ", ".join(row.model for row in self.rows)
        raise InputError(f"{model!r} has no row in suite {self.suite!r}; there are {known}")


def boards_in(store: Store, keys: Set[str] | None = None) -> list[Board]:
    """Every leaderboard that a store holds, by suite and data.

    Args:
        store: what is known.
        keys: of entries; only what is on a board with one of them, if given.

    Raises:
        InputError: it holds none.
        DamagedError: a file is not what was written.
    """
    contests: dict[str, list[dict[str, Any]]] = {}
    asked: set[str] = set()
    for key in store.keys("entries"):
        entry = json.loads(store.read("entries", key).splitlines()[0])
        contest = _contest(entry)
        contests.setdefault(contest, []).append(entry)
        if keys is None or key in keys:
            asked.add(contest)
    if not contests:
        raise InputError(f"{store.folder} holds no results; run rbl bench --out {store.folder}")
    boards = [_board(store, entries) for c, entries in contests.items() if c in asked]
    return sorted(boards, key=lambda b: (b.suite, b.data, b.n, b.seed, b.precision, str(b.trials)))


def _contest(entry: dict[str, Any]) -> str:
    same = ("suite", "data", "samples", "trials", "seed", "precision")
    return digest({k: entry[k] for k in same})


def _board(store: Store, entries: Sequence[dict[str, Any]]) -> Board:
    models = {(entry["model"], entry["model_digest"]) for entry in entries}
    names = [name for name, _ in models]
    best: dict[tuple[str, str], Row] = {}
    for entry in entries:
        name, weights = entry["model"], entry["model_digest"]
        row = Row(
            model=name if names.count(name) == 1 else f"{name}@{weights[:6]}",
            digest=weights,
            card=entry["card"],
            scores=tuple(
                _score(store, trial, units, len(entry["samples"]), entry["slice"])
                for trial, units in zip(entry["trials"], entry["units"], strict=True)
            ),
        )
        # A model whose samples were cut otherwise, or whose card was edited, is the same model.
        known = best.setdefault((name, weights), row)
        if row.missing < known.missing:
            best[name, weights] = row
    rows = list(best.values())
    first = entries[0]
    used = frozenset(v for row in rows for score in row.scores for v in score.versions)
    return Board(
        suite=first["suite"],
        summary=first["summary"],
        data=first["data"],
        seed=first["seed"],
        precision=first["precision"],
        classes=tuple(first["classes"]),
        samples=tuple(first["samples"]),
        trials=tuple(first["trials"]),
        rows=tuple(_ranked(rows)),
        versions=tuple(sorted(used)),
    )


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """The most robust first; ties by clean accuracy, then by name. The incomplete come last."""
    order = sorted(
        rows, key=lambda r: (r.missing > 0, -r.robust_accuracy, -r.clean_accuracy, r.model)
    )
    whole = [row for row in order if not row.missing]
    if whole:
        p_values = pairwise(np.stack([row.robust for row in whole]))
        numbers = ranks(range(len(whole)), p_values)
        whole = [replace(row, rank=rank) for row, rank in zip(whole, numbers, strict=True)]
    return whole + [row for row in order if row.missing]


def _score(store: Store, trial: dict[str, Any], units: Sequence[str], n: int, width: int) -> Score:
    score = Score(
        trial=trial,
        known=np.zeros(n, bool),
        correct=np.zeros(n, bool),
        robust=np.zeros(n, bool),
        size=np.full(n, np.inf),
        queries=np.zeros(n, np.int64),
        reached=np.full(n, -1),
        label=np.full(n, -1),
        errors=np.full(n, np.nan),
    )
    found: list[Found] = []
    for place, key in enumerate(units):
        try:
            unit = found_in(store.read("units", key))
        except FileNotFoundError:
            continue
        _fill(score, unit, place * width)
        found.append(replace(unit, records=[]))  # a million of them take a gigabyte
    return replace(
        score,
        evidence=reduce(add, [f.evidence for f in found]) if found else None,
        seconds=sum(f.seconds for f in found),
        examples=tuple(e for f in found for e in f.examples),
        versions=frozenset(v for f in found for v in f.versions.items()),
    )


def _fill(score: Score, unit: Found, first: int) -> None:
    records = unit.records
    at = slice(first, first + len(records))
    score.known[at] = True
    score.correct[at] = [r["correct"] for r in records]
    score.robust[at] = [r["robust"] for r in records]
    score.size[at] = [r.get("size", np.inf) for r in records]
    score.queries[at] = [r["queries"] for r in records]
    score.reached[at] = [r.get("reached", -1) for r in records]
    score.label[at] = [r["label"] for r in records]
    if score.trial["values"].get("threat") == "corruption":
        score.errors[at] = [np.mean(r["trace"]) if "trace" in r else np.nan for r in records]
