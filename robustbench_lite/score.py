"""How one model did: in one trial, and in the worst case of all trials of a suite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lite.doubts import doubts_of, too_short
from robustbench_lite.evidence import Evidence
from robustbench_lite.stats import wilson
from robustbench_lite.trust import Doubt, Trust, least

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Score:
    """How one model did in one trial: arrays with one place a sample.

    Attributes:
        trial: what was done: name, attack, threat, whether it shrinks perturbations.
        known: (N,) bool: there is a result.
        correct: (N,) bool: right without an attack.
        robust: (N,) bool: right whatever the attack did.
        size: (N,) of the smallest adversarial example, inf where there is none.
        queries: (N,) forward passes.
        reached: (N,) the class of the adversarial example, -1 where there is none.
        label: (N,) the class of the image, -1 where not known.
        evidence: for doubts; None where nothing is known.
        seconds: wall time of all units.
        errors: (N,) share of what was asked that fooled, NaN where the attack kept no course.
        examples: some adversarial examples.
        versions: what computed it.
    """

    trial: dict[str, Any]
    known: Bools
    correct: Bools
    robust: Bools
    size: Floats
    queries: Ints
    reached: Ints
    label: Ints
    errors: Floats
    evidence: Evidence | None = None
    seconds: float = 0.0
    examples: tuple[dict[str, Any], ...] = ()
    versions: frozenset[tuple[str, str]] = frozenset()

    @property
    def name(self) -> str:
        """The trial's."""
        return str(self.trial["name"])

    @property
    def robust_accuracy(self) -> float:
        """Share of the samples with a result that stayed right."""
        return _share(self.robust, self.known)

    @property
    def robust_ci95(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return _wilson(self.robust, self.known)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Reasons not to trust it."""
        return doubts_of(self.evidence) if self.evidence else ()

    @property
    def mean_queries(self) -> float:
        """Over the samples that were attacked; 0 where none was."""
        asked = self.queries[self.known & self.correct]
        return float(asked.mean()) if len(asked) else 0.0

    @property
    def mean_size(self) -> float | None:
        """Of the adversarial examples; None where there is none."""
        found = self.size[self.correct & np.isfinite(self.size)]
        return float(found.mean()) if len(found) else None


@dataclass(frozen=True, eq=False)
class Row:
    """One model: how it did in each trial, and the per-sample worst case.

    Attributes:
        model: its name; with the first digits of its weights' digest where two have one name.
        digest: of its weights, settings and code.
        card: what is known of it.
        scores: one a trial.
        rank: 1 + how many are better beyond chance; None while samples are missing.
    """

    model: str
    digest: str
    card: dict[str, Any]
    scores: tuple[Score, ...]
    rank: int | None = None

    @cached_property
    def known(self) -> Bools:
        """(N,) every trial has a result."""
        every: Bools = np.logical_and.reduce([s.known for s in self.scores])
        return every

    @cached_property
    def correct(self) -> Bools:
        """(N,) right without an attack."""
        every: Bools = np.logical_and.reduce([s.correct for s in self.scores])
        return every

    @cached_property
    def robust(self) -> Bools:
        """(N,) right in every trial."""
        every: Bools = np.logical_and.reduce([s.robust for s in self.scores])
        return every

    @cached_property
    def size(self) -> Floats:
        """(N,) of the smallest adversarial example of all trials, inf where there is none."""
        smallest: Floats = np.minimum.reduce([s.size for s in self.scores])
        return smallest

    @property
    def missing(self) -> int:
        """How many samples lack a result."""
        return int((~self.known).sum())

    @property
    def clean_accuracy(self) -> float:
        """Share of the samples with results that are right without an attack."""
        return _share(self.correct, self.known)

    @property
    def clean_ci95(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return _wilson(self.correct, self.known)

    @property
    def robust_accuracy(self) -> float:
        """Share that is right in the worst case."""
        return _share(self.robust, self.known)

    @property
    def robust_ci95(self) -> tuple[float, float]:
        """Its 95 % Wilson interval."""
        return _wilson(self.robust, self.known)

    @property
    def minimal(self) -> Score | None:
        """The trial whose attack shrinks the perturbation, if there is one in a norm."""
        return next((s for s in self.scores if s.trial["minimal"] and self.eps_of(s)), None)

    @staticmethod
    def eps_of(score: Score) -> float | None:
        """The largest distance of a trial in a norm; None for other threats and without limit."""
        values = score.trial["values"]
        return values.get("eps") if "norm" in values else None

    @property
    def mean_size(self) -> float | None:
        """Mean smallest size of the attack that shrinks the perturbation, where there is one."""
        return self.minimal.mean_size if self.minimal else None

    @property
    def area(self) -> float | None:
        """Area under robust accuracy over eps from 0 to the largest, as a share of the whole.

        By the smallest examples of all trials; None without an attack that shrinks them.
        """
        if self.minimal is None or not self.known.any():
            return None
        eps = self.eps_of(self.minimal) or 1.0
        reach = np.where(self.robust, eps, np.minimum(self.size, eps)) * self.correct
        return float((reach[self.known] / eps).mean())

    @property
    def mce(self) -> float | None:
        """Mean corruption error: over kinds, severities and samples, wrong from the start or not.

        Unlike Hendrycks and Dietterich 2019 (arXiv:1903.12261, section 4) not divided by
        AlexNet's; a sample that is wrong without corruption counts as wrong with any.
        """
        asked = [s for s in self.scores if not np.isnan(s.errors).all()]
        if not asked or not self.known.any():
            return None
        wrong = [np.where(s.correct, s.errors, 1.0)[self.known].mean() for s in asked]
        return float(np.mean(wrong))

    @property
    def queries(self) -> float:
        """Mean forward passes over the attacked samples, all trials together."""
        return sum(s.mean_queries for s in self.scores)

    @property
    def seconds(self) -> float:
        """Wall time of all trials."""
        return sum(s.seconds for s in self.scores)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Reasons not to trust the figures, each once."""
        lost = [
            (int(s.trial["steps"]), int((s.known & ~s.robust).sum()), str(s.trial["attack"]))
            for s in self.scores
        ]
        seen = [s.evidence for s in self.scores if s.evidence is not None]
        blind = any(e.blind for e in seen)  # what gradients hide from one trial another may find
        every = [d for e in seen for d in doubts_of(replace(e, blind=blind))]
        return tuple(dict.fromkeys([*every, *too_short(lost, len(self.known))]))

    @property
    def trust(self) -> Trust:
        """What the doubts leave."""
        return least(self.doubts)


def _share(which: Bools, of: Bools) -> float:
    return float((which & of).sum() / of.sum()) if of.any() else 0.0


def _wilson(which: Bools, of: Bools) -> tuple[float, float]:
    return wilson(int((which & of).sum()), int(of.sum())) if of.any() else (0.0, 1.0)
