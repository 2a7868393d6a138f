"""The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572, section 4)."""

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attack import Attack, Walk
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of length eps along the steepest ascent; in L1 and L2, its analogue.

    Args:
        steps: 1 in the paper.
        loss: what to climb; the paper's is the cross-entropy.
    """

    needs = Access.GRADIENTS

    steps: int = 1
    loss: Loss = Loss.CROSS_ENTROPY

    def supports(self, threat: Threat) -> bool:
        """Every norm with a direction of steepest ascent."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0 and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """At the image itself."""
        return Walk(x)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """All the way to the edge of the threat."""
        gradient = oracle.gradient(state.adv, y, self.loss)
        move = oracle.threat.farthest(gradient, state.adv, oracle.threat.eps / self.steps)
        return Walk(oracle.threat.project(x, state.adv + move))
