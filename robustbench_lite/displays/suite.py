"""What a notebook shows of a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite.displays import marks, words

if TYPE_CHECKING:
    from robustbench_lite.suite import Suite, Trial


def html(suite: Suite) -> str:
    """Its trials, by the data that they are for, and how many samples they take."""
    starts: dict[tuple[Trial, ...], list[str]] = {}
    for start, trials in suite.trials.items():
        starts.setdefault(trials, []).append(f"{start}*" if start else "any")
    rows = [
        tuple(
            marks.text(told)
            for told in (
                ", ".join(names) if place == 0 else "",
                trial.name,
                trial.attack,
                f"{words.distance(trial.threat)}{words.limits(trial.threat)}",
            )
        )
        for trials, names in starts.items()
        for place, trial in enumerate(trials)
    ]
    on = "the data of each model" if suite.data is None else suite.data
    precision = "" if suite.precision == "float32" else f", {suite.precision}"
    return marks.box(
        marks.headline(suite.name, f": {suite.summary}" if suite.summary else ""),
        marks.table(("data", "trial", "attack", "threat"), rows, left=frozenset(range(4))),
        marks.remark(
            f"{suite.n} samples of {on}, seed {suite.seed}{precision}, {suite.slice} a unit of work"
        ),
    )
