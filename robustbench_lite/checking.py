"""Evaluate a model as it is now on a baseline's samples, and let the gate decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robustbench_lite.baseline import Baseline, check_same, told_trial
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset
from robustbench_lite.gate import (
    Answer,
    Counts,
    Finding,
    Policy,
    Rule,
    decided,
    decided_so_far,
    overall,
)
from robustbench_lite.judge import evaluate
from robustbench_lite.suite import Trial
from robustbench_lite.trust import Doubt, Trust, least

_BATCH = 100
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Check:
    """One model against one baseline.

    Attributes:
        classifier: the model as it is now.
        baseline: how it did.
        data: the baseline's samples, in its order.
        trials: the baseline's trials.
    """

    classifier: Classifier
    baseline: Baseline
    data: Dataset
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        told = [
            told_trial(trial, was["asked"])
            for trial, was in zip(self.trials, self.baseline.trials, strict=True)
        ]
        check_same(self.baseline, told, self.data.ids)


@dataclass(frozen=True, eq=False)
class Checked:
    """What came out of one check.

    Attributes:
        model: its name.
        findings: clean accuracy first, then each trial.
        lost: ids of samples that were right in some trial and are not, by measurement.
        doubts: reasons not to trust the figures of now.
        n: samples looked at.
        total: samples in the baseline.
        seconds: wall time.
        data: the data set's name.
    """

    model: str
    findings: tuple[Finding, ...]
    lost: dict[str, tuple[str, ...]]
    doubts: tuple[Doubt, ...]
    n: int
    total: int
    seconds: float
    data: str


@dataclass
class _Course:
    """How far a check has got: what is right now, by measurement."""

    check: Check
    now: dict[str, list[bool]] = field(default_factory=dict)
    doubts: dict[Doubt, None] = field(default_factory=dict)
    n: int = 0
    seconds: float = 0.0

    def go_on(self, count: int, batch_size: int | None, report: Callable[[int], None]) -> None:
        begun = time.perf_counter()
        check = self.check
        rows = range(self.n, min(self.n + count, len(check.data)))
        part = check.data.take(list(rows))
        for trial in check.trials:
            outcome = evaluate(
                check.classifier,
                trial.attack,
                trial.threat,
                part,
                seed=check.baseline.seed,
                batch_size=batch_size,
            )
            self.now.setdefault(trial.name, []).extend(r.robust for r in outcome.records)
            self.doubts |= dict.fromkeys(outcome.doubts)
        self.now.setdefault("clean", []).extend(r.correct for r in outcome.records)
        self.n += len(part)
        self.seconds += time.perf_counter() - begun
        report(len(part))

    def counts(self) -> list[Counts]:
        return [_counts(name, *self.pair(name)) for name in self.names]

    @property
    def names(self) -> list[str]:
        return ["clean", *(trial.name for trial in self.check.trials)]

    def pair(self, name: str) -> tuple[Bools, Bools]:
        baseline = self.check.baseline
        was = baseline.clean if name == "clean" else baseline.robust[name]
        return np.array(was[: self.n], bool), np.array(self.now[name], bool)

    def lost(self) -> dict[str, tuple[str, ...]]:
        ids = np.array(self.check.baseline.ids[: self.n])
        return {
            name: tuple(ids[was & ~now].tolist())
            for name in self.names
            for was, now in [self.pair(name)]
        }


def _counts(name: str, was: Bools, now: Bools) -> Counts:
    return Counts(name, int((was & ~now).sum()), int((now & ~was).sum()), len(was), int(was.sum()))


def checked(
    checks: Sequence[Check],
    rule: Rule,
    *,
    sequential: bool = False,
    max_samples: int | None = None,
    time_limit: float | None = None,
    batch_size: int | None = 256,
    report: Callable[[int], None] | None = None,
) -> tuple[list[Checked], bool]:
    """Evaluate and decide, all checks together.

    Args:
        checks: models and baselines.
        rule: how to decide.
        sequential: look after every 100 samples and stop as soon as it is decided.
        max_samples: of each check at the most.
        time_limit: seconds; what is measured until then decides, if anything is.
        batch_size: samples attacked side by side.
        report: called with the number of samples that are done.

    Returns:
        What came out, and whether the time was up before all samples were looked at.
    """
    begun = time.perf_counter()
    courses = [_Course(check) for check in checks]
    step = _BATCH if sequential or time_limit is not None else max(len(c.data) for c in checks)
    wanted = [min(max_samples or len(c.data), len(c.data)) for c in checks]
    late = False
    while not late and any(c.n < n for c, n in zip(courses, wanted, strict=True)):
        for course, n in zip(courses, wanted, strict=True):
            if course.n < n:
                course.go_on(min(step, n - course.n), batch_size, report or (lambda done: None))
        late = time_limit is not None and time.perf_counter() - begun > time_limit
        if sequential and _settled(overall(_decided(courses, rule, anytime=True)), rule):
            break
    late &= any(c.n < n for c, n in zip(courses, wanted, strict=True))
    # A look that was allowed at any time stays so; else there was one look only, at the end.
    findings = iter(_decided(courses, rule, anytime=sequential))
    found = [
        Checked(
            model=course.check.classifier.name,
            findings=tuple(next(findings) for _ in course.names),
            lost=course.lost(),
            doubts=tuple(course.doubts),
            n=course.n,
            total=len(course.check.data),
            seconds=course.seconds,
            data=course.check.data.name,
        )
        for course in courses
    ]
    return found, late


def _settled(answer: Answer, rule: Rule) -> bool:
    """Can no further sample matter? Under `exact` any one may yet be lost."""
    return answer is Answer.FAIL or (answer is Answer.PASS and rule.policy is not Policy.EXACT)


def _decided(courses: Sequence[_Course], rule: Rule, *, anytime: bool) -> tuple[Finding, ...]:
    every = [counts for course in courses for counts in course.counts()]
    return decided_so_far(every, rule) if anytime else decided(every, rule)


def trust_of(every: Sequence[Checked]) -> Trust:
    """What the doubts of all checks leave."""
    return least(doubt for one in every for doubt in one.doubts)
