"""SimBA: one direction of a basis after the other (Guo et al. 2019, arXiv:1905.07121)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat

_HALVINGS = 10


class Basis(StrEnum):
    """The orthonormal directions: single components, or cosines of low frequency first."""

    PIXEL = "pixel"
    DCT = "dct"


@dataclass(frozen=True)
class Trial:
    """The point on trial, the best point with its margin, and which direction is in turn.

    `order` (N, D) lists the directions; `up` tells that the sign on trial is plus. `length` is that
    of a move, and `gained` tells that a move of this round was kept.
    """

    adv: Tensor
    best: Tensor
    value: Tensor
    order: Tensor
    place: Tensor
    up: Tensor
    length: Tensor
    gained: Tensor
    done: Tensor


@dataclass(frozen=True)
class SimBA(Attack):
    """Moves along random directions of an orthonormal basis, plus or minus, if the margin rises.

    The paper lowers the probability of the class, which does not tell very confident answers apart;
    the margin does. The paper has no limit to the perturbation; here each move is projected back
    into the threat, and after a round through all directions that gained nothing the moves are half
    as long, ten times at the most.

    Args:
        steps: queries; 10000 in the paper.
        step_size: length of the first moves in pixel values, at most eps; 0.2 in the paper.
        basis: pixel, or dct (section 3.2) for smooth moves.
        frequencies: share of each axis' frequencies that dct uses; 1/8 in the paper.
    """

    needs = Access.SCORES

    steps: int = 10000
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    basis: Basis = Basis.PIXEL
    frequencies: Annotated[float, Field(gt=0, le=1)] = 0.125

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Trial:
        """At the image itself, with the directions in a random order."""
        channels, rows, columns = x.shape[1:]
        if self.basis is Basis.DCT:
            rows, columns = self._kept(rows), self._kept(columns)
        order = rng.uniform(channels * rows * columns).argsort(1)
        nothing = torch.zeros_like(y)
        lowest = x.new_full((len(x),), -torch.inf)
        length = torch.full_like(lowest, min(self.step_size, oracle.threat.eps))
        no = nothing.bool()
        return Trial(x, x, lowest, order, nothing - 1, no, length, no, no)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Trial) -> Trial:
        """Ask about the move on trial, keep it if it is better, and propose the next."""
        value = Loss.MARGIN(oracle.logits(state.adv), y, targeted=oracle.targeted)
        better = value > state.value
        best = torch.where(per_row(better, x), state.adv, state.best)
        onward = better | ~state.up
        place = torch.where(onward, state.place + 1, state.place)
        gained = state.gained | (better & (state.place >= 0))
        round_over = onward & (place > 0) & (place % state.order.shape[1] == 0)
        length = torch.where(round_over & ~gained, state.length / 2, state.length)
        direction = state.order.gather(1, (place % state.order.shape[1])[:, None]).squeeze(1)
        signed = per_row(torch.where(onward, length, -length), x)
        adv = oracle.threat.project(x, best + signed * self._direction(x, direction))
        return Trial(
            adv=adv,
            best=best,
            value=torch.where(better, value, state.value),
            order=state.order,
            place=place,
            up=onward,
            length=length,
            gained=gained & ~round_over,
            done=length < min(self.step_size, oracle.threat.eps) * 0.5**_HALVINGS,
        )

    def _kept(self, length: int) -> int:
        return max(1, int(self.frequencies * length))

    def _direction(self, x: Tensor, number: Tensor) -> Tensor:
        """(N, C, H, W): each slot's vector of the basis, of L2 norm 1."""
        channels, rows, columns = x.shape[1:]
        if self.basis is Basis.PIXEL:
            flat = torch.zeros_like(x).flatten(1).scatter(1, number[:, None], 1.0)
            return flat.reshape(x.shape)
        low_rows, low_columns = self._kept(rows), self._kept(columns)
        channel = number // (low_rows * low_columns)
        down = _cosines(rows, x)[number // low_columns % low_rows]
        across = _cosines(columns, x)[number % low_columns]
        here = torch.arange(channels, device=x.device) == channel[:, None]
        return here[:, :, None, None] * down[:, None, :, None] * across[:, None, None, :]


def _cosines(length: int, like: Tensor) -> Tensor:
    """(length, length) the rows of the orthonormal DCT-II."""
    index = torch.arange(length, device=like.device, dtype=like.dtype)
    waves = torch.cos(torch.pi / length * index[:, None] * (index[None, :] + 0.5))
    scale = torch.full_like(index, (2 / length) ** 0.5)
    scale[0] = (1 / length) ** 0.5
    return scale[:, None] * waves
