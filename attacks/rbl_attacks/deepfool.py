"""DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, free, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_LOOKS = 2
_CAREFUL = 10  # so many moves are as short as if components at the box could move too


@dataclass(frozen=True)
class Crossing:
    """The point, the first gap, the example found, how much of the way suffices, the counts."""

    adv: Tensor
    gap: Tensor
    goal: Tensor
    low: Tensor
    high: Tensor
    turn: Tensor
    looks: Tensor
    done: Tensor


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps onto the nearest linearised border until the classifier is fooled.

    Then, unlike in the paper, two looks between the image and the example, the first where the
    border is by the linear approximation, shorten the way. Components that stand at the box and
    would leave it do not move; only later moves make up for them.

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
        return Crossing(x, zeros, x, zeros, zeros + 1, nothing, nothing, nothing.bool())

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Crossing) -> Crossing:
        """One move onto the nearest border, or one look between the image and the example."""
        norm = oracle.threat.norm
        value, normal = nearest_border(oracle, state.adv, y, self.classes)
        open_ = free(normal, state.adv)
        crossed = oracle.found | (state.looks > 0)
        first = crossed & (state.looks == 0)
        goal = torch.where(per_row(first, x), state.adv, state.goal)
        asked = torch.where(first, 1.0, (state.low + state.high) / 2)
        high = torch.where(crossed & (value > 0), asked, state.high)
        low = torch.where(crossed & (value <= 0), asked, state.low)
        along = (open_ * (goal - x)).flatten(1).sum(1)
        nearer = (1 - value / along.clamp(min=1e-12)).clamp(0.5, 1)
        low = torch.where(first, 2 * nearer - 1, low)
        looks = torch.where(crossed, state.looks + 1, state.looks)
        between = x + per_row((low + high) / 2, x) * (goal - x)
        gap = torch.where(state.turn == 0, value.abs(), state.gap)
        careful = per_row(state.turn < _CAREFUL, x)
        aim = value.abs() + self.overshoot * gap
        move = step_onto(norm, aim, torch.where(careful, normal, open_)) * (open_ != 0)
        ahead = (state.adv + move).clamp(0, 1)
        adv = torch.where(per_row(crossed, x), between, ahead)
        return Crossing(adv, gap, goal, low, high, state.turn + 1, looks, looks > _LOOKS)


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
