"""Elastic-net attack (Chen et al. 2018, arXiv:1709.04114, algorithm 1), for small L1."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.fruitless import after_search
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, free, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat


@dataclass(frozen=True)
class Search:
    """The point asked about, the iterate before it, and the search for the margin's weight."""

    adv: Tensor
    last: Tensor
    turn: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    success: Tensor
    size: Tensor
    stale: Tensor
    done: Tensor


@dataclass(frozen=True)
class EAD(Attack):
    """FISTA on c * margin left + beta * |d|_1 + |d|_2^2, with a binary search on c.

    The gradient of the margin is divided by its largest component, so that c means the same for
    every model; `beta` is large beside the paper's, so that the L1 norm and not the L2 norm
    decides; a search starts at the best example of those before it. Of the points asked about the
    one of least L1 norm counts, the paper's L1 rule. A sample leaves when its searches no longer
    shrink the example.

    Args:
        steps: moves in all; each search gets an equal share.
        searches: values of c tried; 9 in the paper, with more steps.
        learning_rate: at first, falling with the square root of the steps left; 0.01 in the paper,
            too long a move where the whole distance is 1.
        beta: weight of the L1 norm; 0.001 to 0.1 in the paper.
        c: the first weight of the margin, by beta; ten times as large after a search that found
            nothing.
        patience: fruitless searches in a row after which a sample leaves.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 720
    searches: Annotated[int, Field(ge=1)] = 6
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.003
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    c: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    patience: Annotated[int, Field(ge=1)] = 2

    def supports(self, threat: Threat) -> bool:
        """L1."""
        return isinstance(threat, Lp) and threat.norm is Norm.L1

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Search:
        """At the image itself."""
        zeros = x.new_zeros(len(x))
        nothing = torch.zeros_like(y)
        c = zeros + self.beta * self.c
        low = zeros + self.beta  # with less, no component is worth its cost
        return Search(
            adv=x,
            last=x,
            turn=nothing,
            c=c,
            low=low,
            high=zeros + torch.inf,
            success=nothing.bool(),
            size=zeros + torch.inf,
            stale=nothing,
            done=nothing.bool(),
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Search) -> Search:
        """One move of FISTA; at the end of a search, the next c."""
        share = max(1, self.steps // self.searches)
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        gradient = free(gradient, state.adv)
        unit = gradient / per_row(flat_norm(gradient, Norm.LINF).clamp(min=1e-30), x)
        weight = torch.where(value > 0, 0.0, state.c)
        rate = self.learning_rate * (1 - state.turn.to(x.dtype) / share).sqrt()
        d = state.adv - x
        d = d - per_row(rate, x) * (2 * d - per_row(weight, x) * unit)
        d = d.sign() * (d.abs() - per_row(rate * self.beta, x)).clamp(min=0)
        point = (x + d).clamp(0, 1)
        turn = state.turn + 1
        ahead = per_row((turn - 1) / (turn + 2), x) * (point - state.last)
        adv = torch.where(point == x, x, point + ahead).clamp(0, 1)
        moved = replace(state, adv=adv, last=point, turn=turn, success=state.success | (value > 0))
        over = turn >= share
        return self._next_search(x, oracle.best, moved, over) if bool(over.any()) else moved

    def _next_search(self, x: Tensor, best: Tensor, state: Search, over: Tensor) -> Search:
        low = torch.where(state.success, state.low, torch.maximum(state.low, state.c))
        high = torch.where(state.success, torch.minimum(state.high, state.c), state.high)
        c = torch.where(high.isinf(), state.c * 10, (low * high).sqrt())
        rows = per_row(over, best)
        size, stale = after_search(x, best, Norm.L1, state.size, state.stale)
        return replace(
            state,
            adv=torch.where(rows, best, state.adv),
            last=torch.where(rows, best, state.last),
            turn=state.turn.masked_fill(over, 0),
            c=torch.where(over, c, state.c),
            low=torch.where(over, low, state.low),
            high=torch.where(over, high, state.high),
            success=state.success & ~over,
            size=torch.where(over, size, state.size),
            stale=torch.where(over, stale, state.stale),
            done=over & (stale >= self.patience),
        )
