"""What the answers about the images themselves tell, before any attack."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier, as_logarithms
from robustbench_lite.evidence import Evidence
from robustbench_lite.loss import are_probabilities, margin, span_of


@dataclass(frozen=True)
class Clean:
    """The clean answers of a model.

    Args:
        logits: (N, K) what it answers.
        y: (N,) the labels.
    """

    logits: Tensor
    y: Tensor

    @property
    def finite(self) -> Tensor:
        """(N,) bool: all logits are numbers."""
        return torch.isfinite(self.logits).all(1)

    @property
    def correct(self) -> Tensor:
        """(N,) bool: the label's logit is the largest."""
        return self.logits.argmax(1) == self.y

    @property
    def probabilities(self) -> bool:
        """Are these outputs probabilities?"""
        return are_probabilities(self.logits)

    @property
    def apart(self) -> float:
        """By how much the label's logit leads or lies behind, the median."""
        leads = margin(self.logits, self.y).abs()[self.finite]
        return float(leads.median()) if len(leads) else 0.0

    def are_logarithms_better(self, classifier: Classifier) -> bool:
        """Is the search to see logarithms? Those of an average of draws are no draws' average."""
        return self.probabilities and not (classifier.randomized or classifier.averages)

    def span(self, logarithms: bool) -> Tensor:
        """(N,) how far apart each image's logits, or their logarithms, are."""
        return span_of(as_logarithms(self.logits) if logarithms else self.logits)

    def told(self, evidence: Evidence) -> Evidence:
        """The evidence with what the clean answers add to it."""
        return replace(
            evidence,
            probabilities=self.probabilities,
            apart=self.apart,
            above=self.off_by(1),
            below=self.off_by(-1),
        )

    def off_by(self, classes: int) -> int:
        """How many are taken for the class so many after their own."""
        return int((self.logits.argmax(1) == self.y + classes).sum())
