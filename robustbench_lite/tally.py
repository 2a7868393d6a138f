"""What an evaluation knows of every sample so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustbench_lite.attack import Attack, Stage
from robustbench_lite.doubts import NOT_FINITE
from robustbench_lite.evidence import Evidence
from robustbench_lite.ledger import Ledger
from robustbench_lite.results import Record
from robustbench_lite.threat import Access, Lp, Threat, measured

_UNLIMITED = 2**62
_ROSE = 0.05
_LONG = 20  # steps of a run whose last ten are not most of it


class Tally:
    """One row a sample.

    Args:
        threat: measures examples.
        x: (N, C, H, W) the images.
        correct: (N,) bool: classified correctly.
        finite: (N,) bool: the logits of the image itself are finite.

    Attributes:
        best: the smallest verified example, and what was asked in all.
        label: (N,) the class that the model gives the best example; -1 where there is none.
        broken: (N,) bool: a verified example lies within the threat.
        broken_by: the attack that found it, "" where there is none.
        blindly: (N,) bool: broken without gradients, after gradients had failed.
        lowest, highest: (N,) the gaps that gradient attacks of more than ten steps came to.
        rising: (N,) bool: the last run of 20 steps or more was still closing the gap when it ended.
    """

    def __init__(self, threat: Threat, x: Tensor, correct: Tensor, finite: Tensor) -> None:
        n = len(x)
        self.threat, self.x, self.correct, self.finite = threat, x, correct, finite
        self.best = Ledger.blank(threat, x, torch.full((n,), threat.queries or _UNLIMITED))
        self.label = torch.full((n,), -1)
        self.broken = torch.zeros(n, dtype=torch.bool)
        self.broken_by = [""] * n
        self.blindly = torch.zeros(n, dtype=torch.bool)
        self.lowest = torch.full((n,), torch.inf)
        self.highest = torch.full((n,), -torch.inf)
        self.rising = torch.zeros(n, dtype=torch.bool)
        self.traces: dict[int, tuple[float, ...]] = {}

    def going_on(self, stage: Stage) -> Tensor:
        """(N,) bool: who goes through a stage, as far as its own story tells."""
        chosen = self.best.budget > 0
        if stage.robust_only or not stage.attack.minimal:
            chosen = chosen & ~self.broken
        if stage.within < math.inf:
            chosen = chosen & (self.best.gap <= stage.within)
        if stage.swings < math.inf:
            chosen = chosen & (self.best.gap <= stage.swings * (self.highest - self.lowest))
        if stage.apart > 0:
            chosen = chosen & (self.highest - self.lowest >= stage.apart)
        if stage.reach < math.inf and isinstance(self.threat, Lp):
            chosen = chosen & (self.best.size <= stage.reach * self.threat.eps)
        return chosen

    def add(self, attack: Attack, rows: Tensor, claims: Ledger) -> None:
        """What an attack spent on the samples `rows`, and how near it came."""
        book = self.best
        book.queries[rows] += claims.queries
        book.backwards[rows] += claims.backwards
        book.budget[rows] -= claims.queries
        book.invalid[rows] |= claims.invalid
        ran = claims.gap_before < torch.inf
        if not attack.roams:
            book.gap[rows] = torch.minimum(book.gap[rows], claims.gap)
        if attack.needs is Access.GRADIENTS and not attack.roams:
            at, gap = rows[ran], claims.gap[ran]
            self.lowest[at] = torch.minimum(self.lowest[at], gap)
            self.highest[at] = torch.maximum(self.highest[at], gap)
            if attack.longest_run >= _LONG:
                self.rising[at] = claims.gap_before[ran] - gap > _ROSE
        for i, course in zip(rows.tolist(), claims.trace.tolist(), strict=True):
            if course:
                self.traces[i] = tuple(v for v in course if not math.isnan(v))

    def keep(self, attack: Attack, at: Tensor, adv: Tensor, label: Tensor) -> None:
        """Of examples `adv` (M, ...) of the samples `at` (M,) those that hold and are the smallest.

        `label` (M,) is the class that the original model gives them, -1 where they do not hold.
        """
        size, inside = measured(self.threat, self.x[at], adv)
        better = (label >= 0) & (size < self.best.size[at])
        at, inside = at[better], at[better & inside]
        self.best.adv[at], self.best.size[at] = adv[better], size[better]
        self.label[at] = label[better]
        new = inside[~self.broken[inside]]
        name = str(attack)
        for i in new.tolist():
            self.broken_by[i] = name
        if attack.needs is not Access.GRADIENTS:
            self.blindly[new] = self.highest[new] > -torch.inf
        self.broken[inside] = True

    @property
    def no_verdict(self) -> Tensor:
        """(N,) bool: a logit was not finite, and nothing else was found."""
        return ~self.finite | (self.correct & self.best.invalid & ~self.broken)

    @property
    def robust(self) -> Tensor:
        """(N,) bool."""
        return self.correct & ~self.broken & ~self.no_verdict

    def evidence(self, classes: int, attackable: Tensor) -> Evidence:
        """What the rows tell of how far they can be trusted; `attackable` (N,) bool had to run."""
        left = self.robust & attackable
        return Evidence(
            n=len(self.x),
            classes=classes,
            correct=int(self.correct.sum()),
            errors=int(self.no_verdict.sum()),
            blindly=int(self.blindly.sum()),
            left=int(left.sum()),
            rising=int((self.rising & left).sum()),
        )

    def records(self, ids: Sequence[str], labels: Tensor) -> tuple[Record, ...]:
        """One record a sample."""
        best = self.best
        columns = (
            labels,
            self.correct,
            self.robust,
            self.no_verdict,
            best.size,
            best.queries,
            best.backwards,
            best.gap,
            self.label,
        )
        rows = zip(ids, *(column.tolist() for column in columns), strict=True)
        return tuple(
            Record(
                id=key,
                label=label,
                correct=right,
                robust=holds,
                size=size if size < math.inf else None,
                queries=queries,
                backwards=backwards,
                attack=self.broken_by[i],
                error=NOT_FINITE if error else "",
                gap=gap if holds and gap < math.inf else None,
                reached=reached if reached >= 0 else None,
                trace=self.traces.get(i, ()),
            )
            for i, (
                key,
                label,
                right,
                holds,
                error,
                size,
                queries,
                backwards,
                gap,
                reached,
            ) in enumerate(rows)
        )
