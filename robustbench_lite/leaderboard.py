"""Models ranked by their worst case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lite.results import Outcome, worst_case


@dataclass(frozen=True)
class Row:
    """One model: its outcome under each attack, and the per-sample worst case."""

    model: str
    outcomes: tuple[Outcome, ...]
    worst: Outcome


def ranked(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row a model, the most robust first; ties by clean accuracy, then by name."""
    by_model: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_model.setdefault(outcome.model, []).append(outcome)
    rows = [Row(model, tuple(found), worst_case(found)) for model, found in by_model.items()]
    return sorted(rows, key=lambda r: (-r.worst.robust_accuracy, -r.worst.clean_accuracy, r.model))
