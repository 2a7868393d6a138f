"""The momentum iterative FGSM (Dong et al. 2018, arXiv:1710.06081, section 3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat


@dataclass(frozen=True)
class Rolling:
    """Where each slot stands, and the gradients gathered on the way."""

    adv: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class MIFGSM(Attack):
    """Steps along a running sum of gradients, each divided by its L1 norm before it is added.

    A zero gradient adds nothing and the momentum goes on. Made for transfer: give `evaluate` a
    surrogate.

    Args:
        steps: moves; 10 in the paper.
        step_size: length of one move, in units of eps; None for 1 / steps, as in the paper.
        decay: the factor of the old sum at each step; 1 in the paper.
        loss: what to climb; the paper's is the cross-entropy.
    """

    needs = Access.GRADIENTS

    steps: int = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    loss: Loss = Loss.CROSS_ENTROPY

    def supports(self, threat: Threat) -> bool:
        """Linf and L2."""
        if not isinstance(threat, Lp) or threat.norm not in (Norm.LINF, Norm.L2):
            return False
        return threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Rolling:
        """At the image itself."""
        return Rolling(x, torch.zeros_like(x))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Rolling) -> Rolling:
        """Add the gradient to the sum and follow the sum."""
        gradient = oracle.gradient(state.adv, y, self.loss)
        momentum = self.decay * state.momentum + unit_l1(gradient)
        share = self.step_size or 1 / self.steps
        return follow(oracle.threat, x, state.adv, momentum, share)


def unit_l1(gradient: Tensor) -> Tensor:
    """Each row divided by its L1 norm; a row of zeros stays one."""
    top = flat_norm(gradient, Norm.LINF).clamp(min=torch.finfo(gradient.dtype).tiny)
    scaled = gradient / per_row(top, gradient)
    return scaled / per_row(flat_norm(scaled, Norm.L1).clamp(min=1), gradient)


def follow(threat: Lp, x: Tensor, adv: Tensor, momentum: Tensor, share: float) -> Rolling:
    """One move of `share` of eps along the momentum, and its projection."""
    move = share * threat.eps * threat.steepest(momentum, adv)
    return Rolling(threat.project(x, adv + move), momentum)
