"""The L2 attack of Carlini and Wagner (2017, arXiv:1608.04644, sections V and VI)."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat

_BEYOND = 0.5  # how far tanh reaches past the box
_CALM = 0.6  # the learning rate's factor from one search to the next
_GAIN = 0.03  # a search that shrinks the example by less counts as fruitless
_LATE = 0.5  # a search starts at an adversarial example: only its second half tells whether c does
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
    spread: Tensor
    rate: Tensor
    size: Tensor
    stale: Tensor
    done: Tensor


@dataclass(frozen=True)
class CW(Attack):
    """Adam on |d|^2 + c * max(margin left, -kappa), with a binary search on c.

    Five things differ from the paper. The margin is divided by the spread of the clean logits, so
    that c means the same for every model. Tanh reaches beyond the box and is clipped, so that
    pixels at exactly 0 or 1 can move. A search starts at the best example of those before it. The
    learning rate falls during a search, and from search to search once there is an example. A
    sample leaves when its searches no longer shrink the example.

    Args:
        steps: moves in all at the most; each search gets an equal share.
        searches: values of c tried; 9 in the paper.
        learning_rate: of Adam at first; 0.01 without a schedule in the paper.
        c: the first weight of the margin, ten times as large after a search that found nothing.
        patience: fruitless searches in a row after which a sample leaves.
        kappa: logits by which the wrong class must win.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 900
    searches: Annotated[int, Field(ge=1)] = 9
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    c: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    patience: Annotated[int, Field(ge=1)] = 3
    kappa: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Search:
        """At the image itself."""
        logits = oracle.logits(x)
        n = len(x)
        zeros = x.new_zeros(n)
        return Search(
            adv=x,
            w=_to_tanh(x),
            tanh=_to_tanh(x).tanh(),
            first=torch.zeros_like(x),
            second=torch.zeros_like(x),
            turn=torch.zeros_like(y),
            c=zeros + self.c,
            low=zeros,
            high=zeros + torch.inf,
            success=torch.zeros_like(y, dtype=torch.bool),
            rate=zeros + self.learning_rate,
            size=zeros + torch.inf,
            stale=torch.zeros_like(y),
            done=torch.zeros_like(y, dtype=torch.bool),
            spread=(logits.amax(1) - logits.amin(1)).clamp(min=torch.finfo(x.dtype).tiny),
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Search) -> Search:
        """One move of Adam; at the end of a search, the next c."""
        share = max(1, self.steps // self.searches)
        turn = state.turn + 1
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        weight = state.c / state.spread * (value < self.kappa)
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
        calmer = over & (state.success | state.high.isfinite())
        low = torch.where(state.success, state.low, torch.maximum(state.low, state.c))
        high = torch.where(state.success, torch.minimum(state.high, state.c), state.high)
        c = torch.where(high.isinf(), state.c * 10, (low + high) / 2)
        rows, w = per_row(over, best), _to_tanh(best)
        size = flat_norm(best - x, Norm.L2)
        size = torch.where(size > 0, size, torch.inf)
        fresh = size.isinf() | (size < (1 - _GAIN) * state.size)
        stale = torch.where(fresh, 0, state.stale + 1)
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
            rate=torch.where(calmer, state.rate * _CALM, state.rate),
            size=torch.where(over, size, state.size),
            stale=torch.where(over, stale, state.stale),
            done=over & (stale >= self.patience),
        )


def _to_tanh(x: Tensor) -> Tensor:
    return torch.atanh((x - 0.5) / (0.5 + _BEYOND))
