"""What a notebook shows of an outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite.displays import marks, words

if TYPE_CHECKING:
    from robustbench_lite.results import Outcome


def html(outcome: Outcome) -> str:
    """Both accuracies with 95 % intervals, what they cost, and how far they can be trusted."""
    accuracies = (
        ("clean accuracy", outcome.clean_accuracy, outcome.clean_ci95),
        ("robust accuracy", outcome.robust_accuracy, outcome.robust_ci95),
    )
    shares = marks.table(
        ("", "", "95 % CI", ""),
        (
            (
                marks.text(name),
                marks.text(marks.share(value), strong=True),
                marks.text(words.interval(*ends)),
                marks.bar(value, ends),
            )
            for name, value, ends in accuracies
        ),
    )
    others = {
        "trust": marks.trust(outcome.trust),
        "mean size": marks.text(words.size(outcome.mean_size)),
        "median size": marks.text(words.size(outcome.median_size)),
        "queries a sample": marks.text(f"{outcome.queries_per_sample:.1f}"),
        "seconds": marks.text(f"{outcome.seconds:.1f}"),
    }
    return marks.box(
        marks.headline(outcome.model, _what(outcome)),
        shares,
        marks.table(tuple(others), [tuple(others.values())]),
        marks.doubts((doubt, "") for doubt in outcome.doubts),
        marks.remark(outcome.attack),
    )


def _what(outcome: Outcome) -> str:
    goal = "" if outcome.goal == "untargeted" else f", {outcome.goal}"
    precision = "" if outcome.precision == "float32" else f", {outcome.precision}"
    return (
        f" on {outcome.data}, {outcome.n} samples, {words.distance(outcome.threat)}"
        f"{words.limits(outcome.threat)}{goal}, seed {outcome.seed}{precision}"
    )
