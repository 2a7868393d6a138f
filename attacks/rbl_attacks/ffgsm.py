"""FGSM from a random start (Wong et al. 2020, arXiv:2001.03994, section 4.1)."""

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
class FFGSM(Attack):
    """A random point of the threat, one signed step of 1.25 eps from there, and the projection.

    It is what fast adversarial training trains on. A component that starts at -eps ends at
    +eps / 4 only, so one step of 1.25 eps does not reach every corner.

    Args:
        steps: 1 in the paper; several share the length of the one.
        step_size: length of all steps together, in units of eps; 1.25 in the paper.
        loss: what to climb; the paper's is the cross-entropy.
    """

    needs = Access.GRADIENTS

    steps: int = 1
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.25
    loss: Loss = Loss.CROSS_ENTROPY

    def supports(self, threat: Threat) -> bool:
        """Linf."""
        return isinstance(threat, Lp) and threat.norm is Norm.LINF and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """A random point of the threat."""
        return Walk(oracle.threat.random_point(x, rng))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """One move and its projection."""
        gradient = oracle.gradient(state.adv, y, self.loss)
        length = self.step_size * oracle.threat.eps / self.steps
        move = length * oracle.threat.steepest(gradient, state.adv)
        return Walk(oracle.threat.project(x, state.adv + move))
