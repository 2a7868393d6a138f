"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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

_LOOKS = 4
_BEYOND = 0.1  # a look goes so much of the way left beyond the estimated border
_CAREFUL = 10  # so many moves are as short as if components at the box could move too


@dataclass(frozen=True)
class Crossing:
    """A walk onto the border, and then the way back from the first example towards the image.

    Attributes:
        adv: the point to be asked next.
        goal: the first example, the end of the way.
        share: how far along the way `adv` is.
        low: the largest share that does not fool, and `below` the lead there.
        high: the smallest share that fools, and `above` the lead there.
        below: (N,) at first the lead at the image.
        above: (N,) lead of the wrong class.
        turn: moves and looks made.
        looks: of those, the looks.
        done: no more looks.
    """

    adv: Tensor
    goal: Tensor
    share: Tensor
    low: Tensor
    high: Tensor
    below: Tensor
    above: Tensor
    turn: Tensor
    looks: Tensor
    done: Tensor


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps onto the nearest linearised border until the classifier is fooled.

    Then, unlike in the paper, four looks between the image and the example, just beyond where the
    border is if the lead is linear in between, shorten the way. Components that stand at the box
    and would leave it do not move; only later moves make up for them.

    Args:
        steps: moves at the most; 50 in the paper.
        overshoot: how far beyond the border, by the first gap; 0.02 in the paper.
        classes: how many of the largest logits are looked at; 10 in the paper.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 50
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    classes: Annotated[int, Field(ge=2)] = 10

    def supports(self, threat: Threat) -> bool:
        """L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm in (Norm.L2, Norm.LINF)

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Crossing:
        """At the image itself."""
        zeros = x.new_zeros(len(x))
        nothing = torch.zeros_like(y)
        ones = zeros + 1
        return Crossing(
            x, x, ones, zeros, ones, zeros, zeros, nothing, nothing, done=nothing.bool()
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Crossing) -> Crossing:
        """One move onto the nearest border, or one look between the image and the example."""
        lead = Loss.MARGIN(oracle.logits(state.adv), y, targeted=oracle.targeted)
        below = torch.where(state.turn == 0, lead.clamp(max=0), state.below)
        state = replace(state, below=below, turn=state.turn + 1)
        crossed = oracle.found | (state.looks > 0)
        state = self._look(x, lead, crossed, state)
        rows = (~crossed).nonzero().flatten()
        if not len(rows):
            return state
        with oracle.part(rows) as some:
            value, normal = nearest_border(some, state.adv[rows], y[rows], self.classes)
        here = state.adv[rows]
        open_ = free(normal, here)
        careful = per_row(state.turn[rows] <= _CAREFUL, here)
        aim = value.abs() - self.overshoot * state.below[rows]
        move = step_onto(oracle.threat.norm, aim, torch.where(careful, normal, open_))
        adv = state.adv.clone()
        adv[rows] = (here + move * (open_ != 0)).clamp(0, 1)
        return replace(state, adv=adv)

    def _look(self, x: Tensor, lead: Tensor, crossed: Tensor, state: Crossing) -> Crossing:
        """The next point on the way of those that crossed: just beyond where a chord says 0."""
        goal = torch.where(per_row(crossed & (state.looks == 0), x), state.adv, state.goal)
        hit, miss = crossed & (lead > 0), crossed & (lead <= 0)
        high, above = torch.where(hit, state.share, state.high), torch.where(hit, lead, state.above)
        low, below = torch.where(miss, state.share, state.low), torch.where(miss, lead, state.below)
        zero = -below / (above - below).clamp(min=1e-30)
        share = low + (high - low) * (zero + _BEYOND * (1 - zero)).clamp(0, 1)
        looks = torch.where(crossed, state.looks + 1, state.looks)
        way = x + per_row(share, x) * (goal - x)
        return Crossing(
            adv=torch.where(per_row(crossed, x), way, state.adv),
            goal=goal,
            share=torch.where(crossed, share, state.share),
            low=low,
            high=high,
            below=below,
            above=above,
            turn=state.turn,
            looks=looks,
            done=looks > _LOOKS,
        )


def nearest_border(
    oracle: Oracle[Lp], adv: Tensor, y: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """(N,) the lead of the class whose linearised border is nearest, and (N, ...) its gradient.

    Positive: the goal is reached. With a targeted goal it is the lead of that class.
    """
    chosen: list[Tensor] = []
    logits, normals = oracle.gradients(adv, _leads(y, classes, oracle.targeted, chosen))
    own = logits.gather(1, y[:, None])
    lead = logits.gather(1, chosen[0]) - own
    if oracle.targeted:
        return -lead[:, 0], normals[:, 0]
    slope = flat_norm(normals.flatten(0, 1), oracle.threat.norm.dual).reshape(lead.shape)
    far = lead.abs() / slope.clamp(min=torch.finfo(lead.dtype).tiny)
    far = torch.where(lead > 0, -1.0, torch.where(slope > 0, far, torch.inf))
    rows = torch.arange(len(adv), device=adv.device)
    best = far.argmin(1)
    return lead[rows, best], normals[rows, best]


def _leads(
    y: Tensor, classes: int, targeted: bool, chosen: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    def directions(logits: Tensor) -> Tensor:
        count = 1 if targeted else min(classes, logits.shape[1]) - 1
        top = logits.scatter(1, y[:, None], -torch.inf).topk(count, dim=1).indices
        chosen.append(top)
        own = torch.zeros_like(logits).scatter(1, y[:, None], 1.0)
        others = torch.zeros(*top.shape, logits.shape[1], device=logits.device)
        weights = others.scatter(2, top[:, :, None], 1.0) - own[:, None]
        return -weights if targeted else weights

    return directions


def step_onto(norm: Norm, value: Tensor, normal: Tensor) -> Tensor:
    """The shortest move (N, ...) after which the linearised `value` (N,) is zero."""
    top = flat_norm(normal, Norm.LINF).clamp(min=torch.finfo(normal.dtype).tiny)
    unit = normal / per_row(top, normal)
    missing = torch.where(flat_norm(normal, Norm.LINF) > 0, value.abs() / top, 0.0)
    if norm is Norm.LINF:
        length = missing / flat_norm(unit, Norm.L1).clamp(min=1e-12)
        return per_row(length, unit) * unit.sign()
    square = unit.square().flatten(1).sum(1).clamp(min=1e-12)
    return per_row(missing / square, unit) * unit
