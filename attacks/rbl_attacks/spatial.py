"""Rotations and translations, by grid or at random (Engstrom et al. 2019, arXiv:1712.02779)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.structured import Spatial
from robustbench_lite.threat import Access, Threat


class Search(StrEnum):
    """Where the proposals come from."""

    GRID = "grid"
    RANDOM = "random"


@dataclass(frozen=True)
class Looks:
    """The proposal, the order of the grid's points, and how many have been asked about."""

    adv: Tensor
    order: Tensor
    turn: Tensor
    done: Tensor


@dataclass(frozen=True)
class SpatialAttack(Attack):
    """Tries angles and shifts until one fools; it looks at labels only.

    The grid is that of section 4: all combinations of evenly spaced angles and shifts, here in an
    order of chance, so that a success comes early and a cap of queries leaves a fair share. The
    paper's random search draws 10 points and keeps the worst; more steps draw more.

    Args:
        steps: queries at the most; a grid ends when all its points have been asked about.
        search: grid or random.
        angles: points of the grid along the angle; 31 in the paper.
        shifts: points of the grid along each shift; 5 in the paper.
    """

    needs = Access.DECISIONS

    steps: int = 775
    search: Search = Search.GRID
    angles: Annotated[int, Field(ge=1)] = 31
    shifts: Annotated[int, Field(ge=1)] = 5

    def supports(self, threat: Threat) -> bool:
        """Spatial."""
        return isinstance(threat, Spatial)

    def start(self, oracle: Oracle[Spatial], x: Tensor, y: Tensor, rng: Rng) -> Looks:
        """The first point of a random order."""
        order = rng.uniform(self.angles * self.shifts**2).argsort(1)
        turn = torch.zeros_like(y)
        adv = self._point(oracle.threat, x, order[:, 0], rng)
        return Looks(adv, order, turn, turn.bool())

    def step(self, oracle: Oracle[Spatial], x: Tensor, y: Tensor, rng: Rng, state: Looks) -> Looks:
        """Ask about a point and go to the next."""
        oracle.labels(state.adv)
        turn = state.turn + 1
        length = state.order.shape[1]
        place = state.order.gather(1, turn.clamp(max=length - 1)[:, None]).squeeze(1)
        adv = self._point(oracle.threat, x, place, rng)
        done = (turn >= length) & (self.search is Search.GRID)
        return Looks(adv, state.order, turn, done)

    def _point(self, threat: Spatial, x: Tensor, place: Tensor, rng: Rng) -> Tensor:
        """(N, 3) the point of a number, or one drawn uniformly."""
        limits = torch.tensor(threat.limits, dtype=x.dtype, device=x.device)
        drawn = 2 * rng.uniform(3).to(x.dtype) - 1
        if self.search is Search.RANDOM:
            return drawn * limits
        parts = (
            place // self.shifts**2,
            place // self.shifts % self.shifts,
            place % self.shifts,
        )
        counts = (self.angles, self.shifts, self.shifts)
        pairs = zip(parts, counts, strict=True)
        even = torch.stack([_even(part, count, x.dtype) for part, count in pairs], 1)
        return even * limits


def _even(number: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """From -1 to 1 in `count` points; one point is 0."""
    return 2 * number.to(dtype) / (count - 1) - 1 if count > 1 else number.to(dtype) * 0
