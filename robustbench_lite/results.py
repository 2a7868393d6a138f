"""What an evaluation found: one record a sample, and the figures that follow from the records."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.evidence import Evidence
from robustbench_lite.running import Precision
from robustbench_lite.stats import wilson
from robustbench_lite.threat import Lp, Threat
from robustbench_lite.trust import Doubt, Trust, least


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        id: the sample's content id.
        label: its class.
        correct: the original model classifies the original image correctly.
        robust: correct, and no adversarial example within the threat was found and verified.
        size: of the best verified adversarial example, None where there is none. An attack that
            shrinks the perturbation may find one that is larger than eps: then `robust` stays.
        queries: forward passes that the attack spent.
        backwards: backward passes that the attack spent.
        attack: the attack that broke it, "" where none did.
        gap: where it stayed robust, how near an attack at fixed eps came: the least lead of its
            class over the others, in units of the span of the image's own logits; None where
            nothing was seen.
        reached: the class that the original model gives the best adversarial example, None where
            there is none.
        trace: the course of the attack, where it tells one (a learning curve, say).
        error: why this sample has no verdict, "" where it has one. It counts as not robust.
    """

    id: str
    label: int
    correct: bool
    robust: bool
    size: float | None
    queries: int
    backwards: int
    attack: str
    error: str
    gap: float | None = None
    reached: int | None = None
    trace: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one plan did to one model on one data set.

    Attributes:
        model: the model's name.
        attack: the plan with all its hyper-parameters.
        threat: what the attacker might do.
        data: the data set's name.
        goal: what counted as success.
        seed: of all random numbers.
        seconds: wall time of the attack and its verification.
        records: one a sample, in the data's order.
        adversarials: (N, C, H, W) the verified adversarial example within the threat, the image
            itself where there is none; none at all where the data are a stream of several parts.
        evidence: what was seen that tells how far the figures can be trusted.
        doubts: reasons not to trust them; empty is good.
        steps: the most that one of the gradient attacks made; 0 where there was none.
        precision: of the search.
    """

    model: str
    attack: str
    threat: Threat
    data: str
    goal: str
    seed: int
    seconds: float
    records: tuple[Record, ...]
    adversarials: Tensor = field(repr=False, compare=False)
    evidence: Evidence
    doubts: tuple[Doubt, ...] = ()
    steps: int = 0
    precision: Precision = Precision.FLOAT32

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.records)

    @property
    def clean_accuracy(self) -> float:
        """Share of samples that the model gets right without an attack."""
        return sum(r.correct for r in self.records) / self.n

    @property
    def clean_ci95(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the clean accuracy."""
        return wilson(sum(r.correct for r in self.records), self.n)

    @property
    def robust_accuracy(self) -> float:
        """Share of samples that the model gets right and the attack did not break."""
        return sum(r.robust for r in self.records) / self.n

    @property
    def robust_ci95(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the robust accuracy."""
        return wilson(sum(r.robust for r in self.records), self.n)

    @property
    def sizes(self) -> list[float]:
        """Sizes of the verified adversarial examples of the samples that were correct."""
        return [r.size for r in self.records if r.correct and r.size is not None]

    @property
    def mean_size(self) -> float | None:
        """Mean size of the adversarial examples; None where there is none."""
        return statistics.fmean(self.sizes) if self.sizes else None

    @property
    def median_size(self) -> float | None:
        """Median size of the adversarial examples; None where there is none."""
        return statistics.median(self.sizes) if self.sizes else None

    @property
    def trust(self) -> Trust:
        """What the doubts leave."""
        return least(self.doubts)

    @property
    def queries_per_sample(self) -> float:
        """Mean forward passes over the samples that were attacked; 0 where none was."""
        spent = [r.queries for r in self.records if r.correct]
        return statistics.fmean(spent) if spent else 0.0

    def robust_accuracy_at(self, eps: float) -> float:
        """Robust accuracy at a smaller eps, by the sizes found.

        It is a curve's point for an attack that shrinks the perturbation, and only an upper bound
        for one that does not.

        Raises:
            InputError: eps is larger than the threat's, where nothing was searched, or the threat
            has no eps.
        """
        if not isinstance(self.threat, Lp):
            raise InputError(f"the threat {self.threat} has no eps; only Lp threats have a curve")
        if eps > self.threat.eps:
            raise InputError(f"eps {eps} is beyond the {self.threat.eps} that was attacked")
        left = (
            r.correct and not r.error and (r.size is None or r.size > eps) for r in self.records
        )
        return sum(left) / self.n

    def _repr_html_(self) -> str:
        from robustbench_lite.displays.outcome import html

        return html(self)

    def to_pandas(self) -> pd.DataFrame:
        """One row a sample, the columns of Record."""
        return pd.DataFrame([asdict(r) for r in self.records])

    def to_json(self) -> dict[str, Any]:
        """The figures and the samples, ready for json.dumps."""
        low, high = self.robust_ci95
        kept = ("id", "correct", "robust", "size", "gap", "queries", "error")
        return {
            "model": self.model,
            "attack": self.attack,
            "threat": self.threat.to_json(),
            "goal": self.goal,
            "data": self.data,
            "n": self.n,
            "seed": self.seed,
            "precision": str(self.precision),
            "clean_accuracy": self.clean_accuracy,
            "clean_ci95": list(self.clean_ci95),
            "robust_accuracy": self.robust_accuracy,
            "robust_ci95": [low, high],
            "mean_size": self.mean_size,
            "median_size": self.median_size,
            "queries_per_sample": self.queries_per_sample,
            "seconds": round(self.seconds, 3),
            "trust": str(self.trust),
            "doubts": [doubt.to_json() for doubt in self.doubts],
            "samples": [
                {k: v for k, v in asdict(r).items() if k in kept or (k == "trace" and v)}
                for r in self.records
            ],
        }


def as_bytes(outcome: Outcome, data: Dataset) -> tuple[Tensor, Tensor]:
    """The adversarial examples rounded to 8 bits so that they stay within the threat.

    Returns:
        (N, C, H, W) uint8 images, and (N,) bool: is the rounded image within the threat? Nearest
        rounding where that stays inside; else rounding towards the original.
    """
    threat = outcome.threat
    nearest = (outcome.adversarials * 255).round()
    if threat.origin(data.x).shape != data.x.shape:  # what rounding does to parameters is nothing
        inside = torch.ones(len(nearest), dtype=torch.bool)
        return nearest.to(torch.uint8), inside
    inside = threat.contains(data.x, nearest / 255)
    original = (data.x * 255).round()
    towards = original + (outcome.adversarials * 255 - original).trunc()
    shape = (-1, 1, 1, 1)
    rounded = torch.where(inside.reshape(shape), nearest, towards).clamp(0, 255)
    return rounded.to(torch.uint8), threat.contains(data.x, rounded / 255)
