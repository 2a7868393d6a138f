"""The boundary attack (Brendel et al. 2018, arXiv:1712.04248, section 2)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.starts import starting_point
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_HALVINGS = 10


@dataclass(frozen=True)
class Stroll:
    """The proposal, the best point, the two step sizes, and how often each kind of step works.

    `phase` counts the looks of the start: first random images, then halvings towards the image.
    """

    adv: Tensor
    best: Tensor
    outside: Tensor
    phase: Tensor
    sideways: Tensor
    inward: Tensor
    turn: Tensor


@dataclass(frozen=True)
class Boundary(Attack):
    """A random walk along the border: a step sideways on the sphere, then one towards the image.

    The two step sizes adapt to the share of steps that stay adversarial: half sideways, a quarter
    inward. The random start is first drawn to the border by ten halvings.

    Args:
        steps: queries; 25000 in the paper.
        sideways: the first sideways step, by the distance; 0.01 in the paper.
        inward: the first step towards the image, by the distance; 0.01 in the paper.
        examples: a data set with images to start from, as mnist5k; needed with a targeted goal.
    """

    needs = Access.DECISIONS
    minimal = True

    steps: int = 5000
    sideways: Annotated[float, Field(gt=0, lt=1)] = 0.1
    inward: Annotated[float, Field(gt=0, lt=1)] = 0.1
    examples: str = ""

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Stroll:
        """At a random image."""
        adv = starting_point(oracle, x, y, rng, self.examples)
        zeros = x.new_zeros(len(x))
        nothing = torch.zeros_like(y)
        side, inward = zeros + self.sideways, zeros + self.inward
        return Stroll(adv, adv, x, nothing, side, inward, nothing)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Stroll) -> Stroll:
        """Ask about the proposal and make the next."""
        hit = oracle.fools(state.adv)
        searching = state.phase == 0
        halving = (state.phase > 0) & (state.phase <= _HALVINGS)
        walking = state.phase > _HALVINGS
        best = torch.where(per_row(hit, x), state.adv, state.best)
        outside = torch.where(per_row(halving & ~hit, x), state.adv, state.outside)
        phase = torch.where((searching & hit) | halving, state.phase + 1, state.phase)
        side, inward = self._adapted(state, hit, walking)
        walks = phase > _HALVINGS
        drawn = starting_point(oracle, x, y, rng, self.examples)
        between = (best + outside) / 2
        walk = self._proposal(x, best, side, inward, state.turn, rng)
        adv = torch.where(per_row(walks, x), walk, between)
        adv = torch.where(per_row(phase == 0, x), drawn, adv)
        turn = torch.where(walks, state.turn + 1, state.turn)
        return Stroll(adv, best, outside, phase, side, inward, turn)

    def _adapted(self, state: Stroll, hit: Tensor, walking: Tensor) -> tuple[Tensor, Tensor]:
        """Longer where steps work too often, shorter where too seldom; the kinds alternate."""
        sidestep = state.turn % 2 == 1
        up, down = 1.05, 1.05
        side = state.sideways * torch.where(hit, up, 1 / down)
        inward = state.inward * torch.where(hit, up**3, 1 / down)
        side = torch.where(walking & sidestep, side, state.sideways).clamp(1e-4, 0.5)
        inward = torch.where(walking & ~sidestep, inward, state.inward).clamp(1e-5, 0.5)
        return side, inward

    def _proposal(
        self, x: Tensor, best: Tensor, side: Tensor, inward: Tensor, turn: Tensor, rng: Rng
    ) -> Tensor:
        d = best - x
        far = flat_norm(d, Norm.L2).clamp(min=1e-12)
        noise = rng.normal(*x.shape[1:]).to(x.dtype)
        unit = d / per_row(far, x)
        noise = noise - per_row((noise * unit).flatten(1).sum(1), x) * unit
        noise = noise / per_row(flat_norm(noise, Norm.L2).clamp(min=1e-12), x)
        moved = unit + per_row(side, x) * noise
        moved = moved / per_row(flat_norm(moved, Norm.L2).clamp(min=1e-12), x)
        shorter = torch.where(turn % 2 == 0, 1.0, 1 - inward)
        return (x + per_row(far * shorter, x) * moved).clamp(0, 1)
