"""Decoupled direction and norm (Rony et al. 2019, arXiv:1811.09600, algorithm 1)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, free, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_BEYOND = 1.05


@dataclass(frozen=True)
class Sphere:
    """The point, the radius of the sphere that it lies on, and the number of moves made."""

    adv: Tensor
    radius: Tensor
    turn: Tensor


@dataclass(frozen=True)
class DDN(Attack):
    """Gradient steps on a sphere that shrinks when the point fools the classifier and grows if not.

    The first radius is the distance to the border by the linear approximation, instead of 1. The
    cross-entropy is that of stretched logits, whose gradient does not vanish for confident models.
    The radius changes less and less, so that more steps give smaller examples.

    Args:
        steps: moves; 100 and more in the paper.
        gamma: by which share the radius changes at first; 0.05 throughout in the paper.
        step_size: length of the first move; it falls to a hundredth (both as in the paper).
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Sphere:
        """At the image itself."""
        return Sphere(x, x.new_zeros(len(x)), torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Sphere) -> Sphere:
        """One move along the gradient, and back to the sphere of the new radius."""
        leads: list[Tensor] = []

        def climb(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
            lead = Loss.MARGIN(logits, y, targeted=targeted)
            leads.append(lead.detach())
            # The first radius needs the gradient of the margin itself.
            return lead.where(state.turn == 0, Loss.CROSS_ENTROPY(logits, y, targeted=targeted))

        gradient = free(oracle.gradient(state.adv, y, climb), state.adv)
        value = torch.stack(leads).mean(0)
        falling = 0.505 + 0.495 * torch.cos(torch.pi * state.turn / self.steps)
        gamma = self.gamma * falling
        linear = _BEYOND * value.abs() / _length(gradient)
        radius = state.radius * torch.where(value > 0, 1 - gamma, 1 + gamma)
        radius = torch.where(state.turn == 0, linear.clamp(max=x[0].numel() ** 0.5), radius)
        radius = torch.where(value > 0, radius.minimum(_inside(oracle, x, gamma)), radius)
        move = gradient / per_row(_length(gradient), x)
        d = state.adv - x + per_row(self.step_size * falling, x) * move
        adv = x + d * per_row(radius / _length(d), d)
        return Sphere(adv.clamp(0, 1), radius, state.turn + 1)


def _inside(oracle: Oracle[Lp], x: Tensor, gamma: Tensor) -> Tensor:
    """A radius within the best example so far; clipping may have made that smaller."""
    size = _length(oracle.best - x)
    return torch.where(oracle.found, size * (1 - gamma), torch.inf)


def _length(d: Tensor) -> Tensor:
    return flat_norm(d, Norm.L2).clamp(min=1e-30)
