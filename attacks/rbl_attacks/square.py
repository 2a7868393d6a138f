"""Square Attack: random search with squares (Andriushchenko et al. 2020, arXiv:1912.00049)."""

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

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries, table 1


@dataclass(frozen=True)
class Search:
    """The proposal, the best point so far with its loss, and the number of queries made."""

    adv: Tensor
    best: Tensor
    value: Tensor
    turn: Tensor


@dataclass(frozen=True)
class Square(Attack):
    """Changes a random square of the image and keeps the change where the margin rises.

    Place, side and signs are drawn for each sample by itself. The squares shrink as in the paper's
    schedule, scaled to `steps`.

    Args:
        steps: queries; 5000 in AutoAttack, 10000 in the paper.
        p_init: share of the image that the first squares cover; 0.8 in AutoAttack.
    """

    needs = Access.SCORES

    steps: int = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8

    def supports(self, threat: Threat) -> bool:
        """Linf and L2."""
        if not isinstance(threat, Lp) or threat.norm not in (Norm.LINF, Norm.L2):
            return False
        return threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Search:
        """Linf: vertical stripes of plus or minus eps. L2: a grid of bumps."""
        channels, rows, columns = x.shape[1:]
        threat = oracle.threat
        if threat.norm is Norm.LINF:
            adv = threat.project(x, x + threat.eps * rng.signs(channels, 1, columns))
        else:
            side = max(1, min(rows, columns) // 5)
            down = torch.arange(rows, device=x.device) // side
            across = torch.arange(columns, device=x.device) // side
            bump = _bump(x, side)
            signs = rng.signs(channels, int(down[-1]) + 1, int(across[-1]) + 1)
            d = (
                signs[:, :, down][:, :, :, across]
                * bump[_phase(rows, side)][:, _phase(columns, side)]
            )
            adv = threat.project(x, x + _to_length(d, threat.eps))
        nothing = torch.zeros_like(y)
        return Search(adv, x, x.new_full((len(x),), -torch.inf), nothing)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Search) -> Search:
        """Ask about the proposal, keep it if it is better, propose the next change."""
        value = Loss.MARGIN(oracle.logits(state.adv), y, targeted=oracle.targeted)
        better = value > state.value
        best = torch.where(per_row(better, x), state.adv, state.best)
        turn = state.turn + 1
        side = self._side(x, turn)
        if oracle.threat.norm is Norm.LINF:
            adv = _with_square(oracle.threat, x, best, side, rng)
        else:
            adv = _with_bump(oracle.threat, x, best, side, rng)
        return Search(adv, best, torch.where(better, value, state.value), turn)

    def _side(self, x: Tensor, turn: Tensor) -> Tensor:
        """(N,) side of each slot's square."""
        marks = torch.tensor(_HALVINGS, device=x.device) * self.steps / 10000
        share = self.p_init / 2.0 ** (turn[:, None] > marks).sum(1)
        rows, columns = x.shape[2:]
        side = (share * rows * columns).sqrt().round().long()
        return side.clamp(min=1, max=min(rows, columns))


def _window(x: Tensor, side: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """(N, rows) and (N, columns): what a square of the side at the place in (0, 1)^2 covers."""
    covered = []
    for axis, length in enumerate(x.shape[2:]):
        first = (place[:, axis] * (length - side + 1)).floor()[:, None]
        index = torch.arange(length, device=x.device)
        covered.append((index >= first) & (index < first + side[:, None]))
    return covered[0], covered[1]


def _with_square(threat: Lp, x: Tensor, best: Tensor, side: Tensor, rng: Rng) -> Tensor:
    """Plus or minus eps, a sign a channel, inside a random square."""
    down, across = _window(x, side, rng.uniform(2))
    inside = down[:, None, :, None] & across[:, None, None, :]
    colour = threat.eps * rng.signs(x.shape[1], 1, 1)
    return torch.where(inside, (x + colour).clamp(0, 1), best)


def _with_bump(threat: Lp, x: Tensor, best: Tensor, side: Tensor, rng: Rng) -> Tensor:
    """Move the perturbation of one square, and what length is left, into another as a bump."""
    channels = x.shape[1]
    places = rng.uniform(4)
    target = _window(x, side, places[:, :2])
    source = _window(x, side, places[:, 2:])
    here = (target[0][:, None, :, None] & target[1][:, None, None, :]).to(x.dtype)
    there = (source[0][:, None, :, None] & source[1][:, None, None, :]).to(x.dtype)
    d = best - x
    union = torch.maximum(here, there)
    total = d.square().flatten(1).sum(1)
    in_union = (d * union).square().flatten(1).sum(1)
    left = (threat.eps**2 - total + in_union).clamp(min=0)
    # The paper shares the length equally among the channels.
    length = (left / channels).sqrt()
    shape = here * _hill(x, target, side)
    shape = shape / per_row(flat_norm(shape, Norm.L2).clamp(min=1e-12), x)
    old = d * here
    old = old / old.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    mixed = shape * rng.signs(channels, 1, 1) + old
    mixed = mixed / mixed.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    moved = d * (1 - union) + per_row(length, x) * mixed
    return threat.project(x, x + moved)


def _hill(x: Tensor, window: tuple[Tensor, Tensor], side: Tensor) -> Tensor:
    """(N, 1, rows, columns): highest in the middle of each slot's square, falling to all sides."""
    heights = []
    for covered in window:
        index = torch.arange(covered.shape[1], device=x.device)
        first = covered.long().argmax(1, keepdim=True)
        off = (index - first - (side[:, None] - 1) / 2).abs()
        heights.append(1 / (1 + off) ** 2)
    return (heights[0][:, :, None] * heights[1][:, None, :])[:, None]


def _bump(x: Tensor, side: int) -> Tensor:
    off = (torch.arange(side, device=x.device) - (side - 1) / 2).abs()
    height = 1 / (1 + off) ** 2
    return height[:, None] * height[None, :]


def _phase(length: int, side: int) -> Tensor:
    return torch.arange(length) % side


def _to_length(d: Tensor, eps: float) -> Tensor:
    return d * per_row(eps / flat_norm(d, Norm.L2).clamp(min=1e-12), d)
