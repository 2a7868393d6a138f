"""Adversarial training (Madry et al. 2018, arXiv:1706.06083)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.classifier import borrowed
from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class PGDAT(Training):
    """Cross-entropy on the worst images that a short PGD finds (Madry et al. 2018, section 2.1).

    Args:
        steps: PGD steps a batch; the paper's CIFAR-10 figure is 7.
        step_size: of one step, in units of eps.
        smoothing: label smoothing of the outer loss.
    """

    steps: Annotated[int, Field(ge=1)] = 7
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The mean cross-entropy at the end of the inner search."""
        adv = threat.random_point(x, rng)
        with borrowed(model):
            for _ in range(self.steps):
                adv.requires_grad_(True)
                inner = functional.cross_entropy(model(adv), y, reduction="sum")
                (gradient,) = torch.autograd.grad(inner, adv)
                move = self.step_size * threat.eps * threat.steepest(gradient, adv.detach())
                adv = threat.project(x, adv.detach() + move)
        return functional.cross_entropy(model(adv), y, label_smoothing=self.smoothing)
