"""The L2 attack of Carlini and Wagner (2017, arXiv:1608.04644, sections V and VI)."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.fruitless import after_search
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat

_BEYOND = 0.5  # how far tanh reaches past the box
_CALM, _BOLD = 0.6, 2.0  # the learning rate's factor once there is an example, and before
_REACH = 0.03  # Adam's first move, in distances to the border, for each move that a search has
_LATE = 0.5  # a search starts at an adversarial example: only its second half tells whether c does
_FLAT = 1e-20  # a gradient below this gives no first c
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-12


@dataclass(frozen=True)
class Search:
    """Adam's state in tanh space and the binary search for the weight of the margin."""

    adv: Tensor
    w: Tensor
    tanh: Tensor
    first: Tensor
    second: Tensor
    turn: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    success: Tensor
    rate: Tensor
    size: Tensor
    stale: Tensor
    done: Tensor


@dataclass(frozen=True)
class CW(Attack):
    """Adam on |d|^2 + c * max(margin left, -kappa), with a binary search on c.

    Five things differ from the paper. The first c and the first learning rate follow from the
    distance to the border that the first gradient promises. Tanh reaches beyond the box and is
    clipped, so that pixels at exactly 0 or 1 can move. A search starts at the best example of those
    before it. The learning rate falls during a search, and from search to search once there is an
    example; before that it doubles. A sample leaves when its searches no longer shrink the example.

    Args:
        steps: moves in all at the most; each search gets an equal share.
        searches: values of c tried; 9 in the paper.
        learning_rate: of Adam at the most; 0.01 without a schedule in the paper.
        c: the first weight of the margin, in weights that just suffice if the model is linear; ten
            times as large after a search that found nothing.
        patience: fruitless searches in a row after which a sample leaves.
        kappa: logits by which the wrong class must win.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 900
    searches: Annotated[int, Field(ge=1)] = 9
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    c: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    patience: Annotated[int, Field(ge=1)] = 1
    kappa: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    @property
    def _share(self) -> int:
        return max(1, self.steps // self.searches)

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Search:
        """At the image itself."""
        value, gradient = oracle.value_and_gradient(x, y, Loss.MARGIN)
        room = torch.where(gradient > 0, x < 1, x > 0)
        steepness = flat_norm(gradient * room, Norm.L2).clamp(min=_FLAT)
        across = math.sqrt(x[0].numel())
        border = ((self.kappa - value) / steepness).clamp(_TINY, across)
        w = _to_tanh(x)
        tanh = w.tanh()
        stretch = flat_norm((0.5 + _BEYOND) * (1 - tanh.square()), Norm.L2)
        zeros = x.new_zeros(len(x))
        return Search(
            adv=x,
            w=w,
            tanh=tanh,
            first=torch.zeros_like(x),
            second=torch.zeros_like(x),
            turn=torch.zeros_like(y),
            c=self.c * 2 * border / steepness,
            low=zeros,
            high=zeros + torch.inf,
            success=torch.zeros_like(y, dtype=torch.bool),
            rate=(_REACH * self._share * border / stretch).clamp(max=self.learning_rate),
            size=zeros + torch.inf,
            stale=torch.zeros_like(y),
            done=torch.zeros_like(y, dtype=torch.bool),
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Search) -> Search:
        """One move of Adam; at the end of a search, the next c."""
        share = self._share
        turn = state.turn + 1
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        weight = state.c * (value < self.kappa)
        slope = 2 * (state.adv - x) - per_row(weight, gradient) * gradient
        slope = slope * (0.5 + _BEYOND) * (1 - state.tanh.square())
        first = _BETA1 * state.first + (1 - _BETA1) * slope
        second = _BETA2 * state.second + (1 - _BETA2) * slope.square()
        rate = state.rate * (0.505 + 0.495 * torch.cos(torch.pi * turn / share))
        scale = rate / (1 - _BETA1**turn)
        root = (second / per_row(1 - _BETA2**turn, second)).sqrt() + _TINY
        w = state.w - per_row(scale, first) * first / root
        tanh = w.tanh()
        moved = replace(
            state,
            adv=(0.5 + (0.5 + _BEYOND) * tanh).clamp(0, 1),
            w=w,
            tanh=tanh,
            first=first,
            second=second,
            turn=turn,
            success=state.success | ((value > self.kappa) & (turn > _LATE * share)),
        )
        over = turn >= share
        return self._next_search(x, oracle.best, moved, over) if bool(over.any()) else moved

    def _next_search(self, x: Tensor, best: Tensor, state: Search, over: Tensor) -> Search:
        factor = torch.where(state.success | state.high.isfinite(), _CALM, _BOLD)
        low = torch.where(state.success, state.low, torch.maximum(state.low, state.c))
        high = torch.where(state.success, torch.minimum(state.high, state.c), state.high)
        c = torch.where(high.isinf(), state.c * 10, (low + high) / 2)
        rows, w = per_row(over, best), _to_tanh(best)
        size, stale = after_search(x, best, Norm.L2, state.size, state.stale)
        return replace(
            state,
            adv=torch.where(rows, best, state.adv),
            w=torch.where(rows, w, state.w),
            tanh=torch.where(rows, w.tanh(), state.tanh),
            first=state.first.masked_fill(rows, 0),
            second=state.second.masked_fill(rows, 0),
            turn=state.turn.masked_fill(over, 0),
            c=torch.where(over, c, state.c),
            low=torch.where(over, low, state.low),
            high=torch.where(over, high, state.high),
            success=state.success & ~over,
            rate=torch.where(over, state.rate * factor, state.rate).clamp(max=self.learning_rate),
            size=torch.where(over, size, state.size),
            stale=torch.where(over, stale, state.stale),
            done=over & (stale >= self.patience),
        )


def _to_tanh(x: Tensor) -> Tensor:
    return torch.atanh((x - 0.5) / (0.5 + _BEYOND))
