"""The trade-off between accuracy and robustness as a loss (Zhang et al. 2019, arXiv:1901.08573)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rbl_defenses.adversarial import Adversarial, ascend
from robustbench_lite.classifier import borrowed
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp

_NUDGE = 1e-3  # the divergence has no gradient at the image itself


@dataclass(frozen=True)
class TRADES(Adversarial):
    """Cross-entropy on the image, and how far predictions move within the threat (equation 5).

    Args:
        beta: weight of the movement, 1 / lambda in the paper; 6 in its CIFAR-10 experiments.
        steps: of the search a batch; 10 in the paper.
        step_size: of one step, in units of eps; 2/255 at 8/255 in the paper.
    """

    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 6.0
    steps: Annotated[int, Field(ge=1)] = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """Where predictions differ most from those at the image."""
        with borrowed(model), torch.no_grad():
            there = model(x).softmax(1)

        def climb(logits: Tensor) -> Tensor:
            return functional.kl_div(logits.log_softmax(1), there, reduction="sum")

        start = threat.project(x, x + _NUDGE * rng.normal(*x.shape[1:]).to(x.dtype))
        return ascend(model, x, start, threat, climb, [self.step_size] * self.steps)

    def objective(self, model: nn.Module, x: Tensor, adv: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy plus beta times the mean divergence."""
        logits = model(x)
        moved = model(adv).log_softmax(1)
        divergence = functional.kl_div(moved, logits.softmax(1), reduction="batchmean")
        return functional.cross_entropy(logits, y) + self.beta * divergence
