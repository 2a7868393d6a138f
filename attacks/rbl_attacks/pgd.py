"""Projected gradient ascent (Madry et al. 2018, arXiv:1706.06083, section 2.1)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack, Walk
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat


@dataclass(frozen=True)
class PGD(Attack):
    """Steps along the steepest ascent of the loss, each projected back into the threat.

    Args:
        steps: moves; 40 is the paper's figure for MNIST.
        step_size: length of one move, in units of eps.
        loss: what to climb; the paper's is the cross-entropy.
        random_start: start at a random point of the threat instead of the image.
    """

    needs = Access.GRADIENTS

    steps: int = 40
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    loss: Loss = Loss.CROSS_ENTROPY
    random_start: bool = True

    def supports(self, threat: Threat) -> bool:
        """Every norm with a direction of steepest ascent."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0 and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """A random point of the threat, or the image."""
        return Walk(oracle.threat.random_point(x, rng) if self.random_start else x)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """One move and its projection."""
        gradient = oracle.gradient(state.adv, y, self.loss)
        move = self.step_size * oracle.threat.eps * oracle.threat.steepest(gradient, state.adv)
        return Walk(oracle.threat.project(x, state.adv + move))
