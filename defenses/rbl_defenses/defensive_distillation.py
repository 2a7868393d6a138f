"""Distillation at a high temperature (Papernot et al. 2016, arXiv:1511.04508, section IV)."""

from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Training
from robustbench_lite.models import load_model
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class DefensiveDistillation(Training):
    """Learn at temperature T, classify at 1: logits so large that the softmax has no gradient.

    Two runs: the teacher first, without `teacher`, from the labels; then its student. An adaptive
    attacker starts from the logits (Carlini and Wagner 2017, arXiv:1608.04644, section VIII), an
    unaware one from the probabilities.

    Args:
        temperature: what logits are divided by in training; 20 for MNIST in the paper.
        teacher: a registered model or a file, trained at the same temperature; none: the labels.
    """

    temperature: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0
    teacher: str = ""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The mean cross-entropy at the temperature, with what the teacher says or the labels.

        It is multiplied by the temperature, so that the slope of the logits is as usual.
        """
        told = y
        if self.teacher:
            with torch.no_grad():
                told = (_loaded(self.teacher)(x) / self.temperature).softmax(1)
        return self.temperature * functional.cross_entropy(model(x) / self.temperature, told)

    def unaware(self, classifier: Classifier) -> Classifier:
        """The same answers with the gradient of the probabilities at temperature 1."""
        return _Probabilities(classifier)


_loaded = cache(load_model)


class _Probabilities(Classifier):
    def __init__(self, inner: Classifier) -> None:
        super().__init__(inner, classes=inner.classes, access=inner.access, name=inner.name)
        self.randomized = inner.randomized

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        logits = super().forward(x, rng)
        probabilities = logits.softmax(1)
        return probabilities + (logits - probabilities).detach()
