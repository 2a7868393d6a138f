"""FGSM with translation-invariant gradients (Dong et al. 2019, arXiv:1904.02884, section 3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.di_fgsm import Resizing, diverse_gradient
from rbl_attacks.mi_fgsm import Rolling, follow, unit_l1
from robustbench_lite.attack import Attack
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat

_REACH = 3.0  # the kernel ends at so many standard deviations, as in the paper's code


@dataclass(frozen=True)
class TIFGSM(Attack):
    """MI-FGSM whose gradients are smoothed with a Gaussian, as if averaged over shifted images.

    Args:
        steps: moves; 10 in the paper.
        step_size: length of one move, in units of eps; None for 1 / steps, as in the paper.
        decay: the factor of the old gradients at each step; 1 in the paper.
        kernel: width of the Gaussian in pixels, odd; 15 in the paper, for images of 299 pixels. On
            small images it is at most about a quarter of the side, and below 8 pixels it is 1.
        probability: of changing the input of a step as DI-FGSM does; with 0.5 it is the paper's
            TI-DIM, with 0 its TI-MI-FGSM.
        smallest: the smallest size of a changed input, by the image's.
        loss: what to climb; the paper's is the cross-entropy.
    """

    needs = Access.GRADIENTS

    steps: int = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    kernel: Annotated[int, Field(ge=1)] = 15
    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.9
    loss: Loss = Loss.CROSS_ENTROPY

    def supports(self, threat: Threat) -> bool:
        """Linf."""
        return isinstance(threat, Lp) and threat.norm is Norm.LINF and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Rolling:
        """At the image itself."""
        return Rolling(x, torch.zeros_like(x))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Rolling) -> Rolling:
        """Add the smoothed gradient to the sum and follow the sum."""
        change = Resizing.draw(x, rng, self.probability, self.smallest)
        gradient = diverse_gradient(oracle, state.adv, y, self.loss, change)
        momentum = self.decay * state.momentum + unit_l1(self._smoothed(gradient))
        share = self.step_size or 1 / self.steps
        return follow(oracle.threat, x, state.adv, momentum, share)

    def _smoothed(self, gradient: Tensor) -> Tensor:
        rows, columns = (self._kernel(side).to(gradient) for side in gradient.shape[2:])
        return rows @ gradient @ columns

    def _kernel(self, side: int) -> Tensor:
        """(side, side) the weights with which the pixels of a side make up its smoothed copy."""
        index = torch.arange(side, dtype=torch.float32)
        apart = index[:, None] - index
        half = min(self.kernel // 2, side // 8)
        weights = torch.exp(-(apart / max(half, 1) * _REACH).square() / 2)
        return weights * (apart.abs() <= half)
