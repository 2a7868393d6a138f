"""Classifiers that prove their answers: no image within a radius gets another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.data import Dataset, checked_for, content_of
from robustbench_lite.errors import InputError, UnsupportedError
from robustbench_lite.inference import predict
from robustbench_lite.rng import Rng, key_of
from robustbench_lite.running import Settings
from robustbench_lite.stats import wilson
from robustbench_lite.threat import Norm


@dataclass(frozen=True, eq=False)
class Proof:
    """What is proven of N images.

    Attributes:
        labels: (N,) int64 the proven class, -1 where the classifier abstains.
        radius: (N,) float64 how far the proof reaches, 0 where it abstains.
    """

    labels: Tensor
    radius: Tensor


@runtime_checkable
class Certifying(Protocol):
    """A classifier that can prove its answers.

    Attributes:
        norm: of the radius.
        confidence: the least probability that one proof holds; 1 without random numbers.
    """

    norm: Norm
    confidence: float

    def certify(self, x: Tensor, rng: Rng) -> Proof:
        """Proofs for images (N, C, H, W); `rng` is keyed by sample."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What `certify` proved of a data set, sample by sample.

    Attributes:
        model: its name.
        data: the data's name.
        seed: of the random numbers.
        norm: of the radius.
        confidence: the least probability that one sample's proof holds.
        ids: content ids of the samples.
        truth: (N,) labels of the data.
        labels: (N,) proven classes, -1 where the classifier abstains.
        radius: (N,) float64.
    """

    model: str
    data: str
    seed: int
    norm: Norm
    confidence: float
    ids: tuple[str, ...]
    truth: Tensor
    labels: Tensor
    radius: Tensor

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.truth)

    @property
    def abstained(self) -> int:
        """How many samples the classifier gave no answer for."""
        return int((self.labels < 0).sum())

    def certified(self, eps: float) -> int:
        """How many samples are proven to be classified rightly everywhere within eps."""
        right = self.labels == self.truth
        return int((right & (self.radius >= eps)).sum())

    def accuracy(self, eps: float) -> float:
        """Certified accuracy, 0 to 1."""
        return self.certified(eps) / self.n

    def ci95(self, eps: float) -> tuple[float, float]:
        """95 % interval of the certified accuracy (Wilson)."""
        return wilson(self.certified(eps), self.n)

    @property
    def mean_radius(self) -> float:
        """Average certified radius (Zhai et al. 2020, arXiv:2001.02378): 0 where it is wrong."""
        return float(self.radius.where(self.labels == self.truth, 0.0).mean())


def certify(
    classifier: Classifier,
    data: Dataset,
    *,
    seed: int = 0,
    batch_size: int = 256,
    report: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Ask a classifier for proofs of all samples; batches and their order change nothing.

    Args:
        classifier: one that can, as a model behind `randomized-smoothing`.
        data: the samples.
        seed: of the random numbers, which belong to the sample.
        batch_size: samples at a time.
        report: called with the samples done and all samples.

    Raises:
        UnsupportedError: the classifier proves nothing.
        InputError: batch_size is below 1, or data and model do not belong together.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more")
    if not isinstance(classifier, Certifying):
        raise UnsupportedError(
            f"model {classifier.name} proves nothing; put a defense with a certificate at its end, "
            f"as {classifier.name}+randomized-smoothing"
        )
    keys = torch.tensor([key_of(seed, content_of(i), "certificate") for i in data.ids])
    proofs: list[Proof] = []
    with borrowed(classifier), torch.no_grad():
        checked_for(data, predict(classifier, data.x[:1], Settings(), keys[:1]).shape[1])
        for first in range(0, len(data), batch_size):
            rows = slice(first, first + batch_size)
            x = data.x[rows].to(classifier.device)
            proofs.append(classifier.certify(x, Rng(keys[rows].to(classifier.device))))
            if report is not None:
                report(min(first + batch_size, len(data)), len(data))
    return Certificate(
        model=classifier.name,
        data=data.name,
        seed=seed,
        norm=classifier.norm,
        confidence=classifier.confidence,
        ids=data.ids,
        truth=data.y,
        labels=torch.cat([proof.labels.cpu() for proof in proofs]),
        radius=torch.cat([proof.radius.cpu() for proof in proofs]),
    )
