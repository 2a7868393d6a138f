"""Is a model less robust than it was? A paired test with three answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from robustbench_lite.errors import InputError
from robustbench_lite.evalues import drop_e_value, no_drop_e_value
from robustbench_lite.stats import (
    holm,
    mcnemar_drop,
    samples_to_pass,
    tango,
)


class Answer(StrEnum):
    """What the gate says, worst last."""

    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"


class Policy(StrEnum):
    """When is a drop a regression?

    `standard`: a drop beyond chance that may reach the margin. `strict`: any drop beyond chance,
    within the margin or not. `exact`: any sample that was right and is not.
    """

    STANDARD = "standard"
    STRICT = "strict"
    EXACT = "exact"


@dataclass(frozen=True)
class Rule:
    """How the gate decides.

    Args:
        margin: the drop of accuracy, as a share, that must not be passed.
        alpha: chance of failing a model that has not changed, and of passing one that has dropped
            by the margin.
        policy: what counts as a regression.

    Raises:
        InputError: a share is not between 0 and 1.
    """

    margin: float = 0.02
    alpha: float = 0.05
    policy: Policy = Policy.STANDARD

    def __post_init__(self) -> None:
        for name, value, most in (("margin", self.margin, 1), ("alpha", self.alpha, 0.5)):
            if not 0 < value < most:
                raise InputError(
                    f"{name} is {value:g}; give a share between 0 and {most:g}, such as 0.02"
                )


@dataclass(frozen=True)
class Counts:
    """Two runs on the same samples.

    Attributes:
        name: what was measured: clean, or a trial.
        lost: samples that were right and are not.
        gained: samples that are right and were not.
        n: samples with results of both.
        before: how many of them were right.
    """

    name: str
    lost: int
    gained: int
    n: int
    before: int

    @property
    def after(self) -> int:
        """How many are right now."""
        return self.before - self.lost + self.gained


@dataclass(frozen=True)
class Finding:
    """What the gate says of one measurement.

    Attributes:
        counts: what it says it of.
        answer: pass, fail or inconclusive.
        p: of no drop, exact one-sided McNemar, Holm-adjusted over all measurements; where it looks
            at every batch, the bound that the e-value gives.
        low, high: Tango's 95 % score interval of the drop.
        needed: where it is inconclusive, samples still needed for a model that has not changed to
            pass with a chance of 95 %, by the discordance seen; else 0.
    """

    counts: Counts
    answer: Answer
    p: float
    low: float
    high: float
    needed: int = 0


def decided(every: Sequence[Counts], rule: Rule) -> tuple[Finding, ...]:
    """What a fixed number of samples says; alpha holds for all measurements together."""
    adjusted = holm([mcnemar_drop(c.lost, c.gained) for c in every])
    found = []
    for counts, p in zip(every, adjusted, strict=True):
        _, most = tango(counts.lost, counts.gained, counts.n, 1 - 2 * rule.alpha)
        answer = _answer(counts, rule, fails=p <= rule.alpha, passes=most < rule.margin)
        found.append(_finding(counts, rule, answer, p))
    return tuple(found)


def decided_so_far(every: Sequence[Counts], rule: Rule) -> tuple[Finding, ...]:
    """The same from e-values, which allow a look after every batch.

    Fails are for all measurements together (alpha is divided); a pass needs every one to pass.
    """
    found = []
    for counts in every:
        p = min(1.0, len(every) / max(drop_e_value(counts.lost, counts.gained), 1e-300))
        safe = no_drop_e_value(counts.lost, counts.gained, counts.n, rule.margin)
        answer = _answer(counts, rule, fails=p <= rule.alpha, passes=safe >= 1 / rule.alpha)
        found.append(_finding(counts, rule, answer, p, anytime=True))
    return tuple(found)


def overall(findings: Sequence[Finding]) -> Answer:
    """The worst of them."""
    return max((f.answer for f in findings), key=list(Answer).index, default=Answer.PASS)


def _answer(counts: Counts, rule: Rule, *, fails: bool, passes: bool) -> Answer:
    if rule.policy is Policy.EXACT:
        return Answer.FAIL if counts.lost else Answer.PASS
    if fails and rule.policy is Policy.STRICT:
        return Answer.FAIL
    if passes:
        return Answer.PASS
    return Answer.FAIL if fails else Answer.INCONCLUSIVE


def _finding(
    counts: Counts, rule: Rule, answer: Answer, p: float, *, anytime: bool = False
) -> Finding:
    found = Finding(counts, answer, p, *tango(counts.lost, counts.gained, counts.n))
    if answer is not Answer.INCONCLUSIVE:
        return found
    psi = (counts.lost + counts.gained + 1) / (counts.n + 1)
    wanted = samples_to_pass(psi, rule.margin, rule.alpha)
    if not anytime:
        return replace(found, needed=max(1, wanted - counts.n))
    # Tests that allow a look at any time take more: 1.7 times, and half as many again (measured).
    wanted = math.ceil(1.7 * wanted)
    return replace(found, needed=max(1, wanted - counts.n, wanted // 2))
