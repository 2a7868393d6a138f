"""Fast minimum-norm (Pintor et al. 2021, arXiv:2102.12827, algorithm 1)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, free, per_row, project_ball
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_BEYOND = 1.02  # a little more than the linear distance: exactly at the border nothing happens
_FIRST_MOVE = {Norm.L0: 3.0, Norm.L1: 1.0, Norm.L2: 1.0, Norm.LINF: 10.0}
_GAMMA = {Norm.L0: 0.1, Norm.L1: 0.05, Norm.L2: 0.05, Norm.LINF: 0.05}


@dataclass(frozen=True)
class Shell:
    """The point, the radius of the ball that it is kept in, and the number of moves made."""

    adv: Tensor
    radius: Tensor
    turn: Tensor


@dataclass(frozen=True)
class FMN(Attack):
    """Gradient steps in a ball that shrinks when the point fools the classifier and grows if not.

    Until the first example is found the radius is the distance to the border by the linear
    approximation, as in the paper, and a little more; in L0 it grows from one component, and may
    grow beyond the best example again. Components that stand at the box and would leave it do not
    take part in a move.

    Args:
        steps: moves; 1000 in the paper.
        gamma: by which share the radius changes at first, falling to a fiftieth as in the paper;
            0 for 0.1 in L0 and the paper's 0.05 in the other norms.
        step_size: length of the first move in L2, falling to a hundredth; 0 for 3 in L0 and the
            paper's choice elsewhere, which is 10 in Linf and 1 in L1 and L2.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    step_size: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def supports(self, threat: Threat) -> bool:
        """Every norm."""
        return isinstance(threat, Lp)

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Shell:
        """At the image itself."""
        return Shell(x, x.new_full((len(x),), torch.inf), torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Shell) -> Shell:
        """One move along the gradient, and back into the ball of the new radius."""
        norm = oracle.threat.norm
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        gradient = free(gradient, state.adv)
        wave = 0.5 + 0.5 * torch.cos(torch.pi * state.turn / self.steps)
        gamma = (self.gamma or _GAMMA[norm]) * (0.02 + 0.98 * wave)
        d = state.adv - x
        radius = self._radius(oracle, x, state, value, gradient, gamma)
        length = (self.step_size or _FIRST_MOVE[norm]) * (0.01 + 0.99 * wave)
        scale = length / flat_norm(gradient, Norm.L2).clamp(min=1e-30)
        d = project_ball(d + per_row(scale, d) * gradient, norm, radius)
        return Shell((x + d).clamp(0, 1), radius, state.turn + 1)

    def _radius(
        self,
        oracle: Oracle[Lp],
        x: Tensor,
        state: Shell,
        value: Tensor,
        gradient: Tensor,
        gamma: Tensor,
    ) -> Tensor:
        norm, radius, d = oracle.threat.norm, state.radius, state.adv - x
        whole = float(x[0].numel()) if len(x) else 1.0
        best = flat_norm(oracle.best - x, norm)
        if norm is Norm.L0:
            radius = torch.where(state.turn == 0, 1.0, radius)
            shrunk = (radius * (1 - gamma)).floor().minimum(radius - 1)
            shrunk = torch.where(oracle.found, shrunk.minimum(best), shrunk)
            grown = (radius * (1 + gamma)).floor().maximum(radius + 1)
            return torch.where(value > 0, shrunk, grown).clamp(1, whole)
        slope = flat_norm(gradient, norm.dual)
        far = flat_norm(d, norm) + _BEYOND * value.abs() / slope.clamp(min=1e-30)
        shrunk = (radius * (1 - gamma)).minimum(best)
        grown = (radius * (1 + gamma)).minimum(best)
        found = oracle.found
        new = torch.where(value > 0, torch.where(found, shrunk, radius), grown)
        return torch.where(found, new, far).clamp(0, whole)
