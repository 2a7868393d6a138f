"""Sigma-zero: few changed components by a smooth count (Cina et al. 2025, arXiv:2402.01879)."""

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

_BETA1, _BETA2 = 0.9, 0.999
_SPREAD = 20.0  # the margin is measured in twentieths of the clean logits' spread


@dataclass(frozen=True)
class Sparse:
    """Adam's state, the threshold below which a component is set back, and the clean spread."""

    adv: Tensor
    first: Tensor
    second: Tensor
    cut: Tensor
    spread: Tensor
    turn: Tensor


@dataclass(frozen=True)
class SigmaZero(Attack):
    """Adam on the margin left plus a smooth count of changed components, with a moving threshold.

    The margin is divided by the spread of the clean logits, so that it weighs the same against the
    count for every model. Components are counted, not pixels.

    Args:
        steps: moves; 1000 in the paper.
        step_size: Adam's rate at first; 1 in the paper. It falls to a tenth.
        sigma: how sharply the count tells small changes from none; 0.001 in the paper.
        cut: the first threshold; 0.3 in the paper.
        cut_step: by how much the threshold moves, times the rate; 0.01 in the paper.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 1000
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    cut: Annotated[float, Field(ge=0, le=1)] = 0.3
    cut_step: Annotated[float, Field(ge=0, le=1)] = 0.01

    def supports(self, threat: Threat) -> bool:
        """L0."""
        return isinstance(threat, Lp) and threat.norm is Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Sparse:
        """At the image itself."""
        logits = oracle.logits(x)
        spread = (logits.amax(1) - logits.amin(1)).clamp(min=torch.finfo(x.dtype).tiny)
        zeros = torch.zeros_like(x)
        cut = x.new_full((len(x),), self.cut)
        return Sparse(x, zeros, zeros, cut, spread, torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Sparse) -> Sparse:
        """One move of Adam; then small changes are undone."""
        turn = state.turn + 1
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        d = state.adv - x
        weight = _SPREAD / state.spread * (value <= 0)
        square = d.square()
        count = 2 * d * self.sigma / (square + self.sigma).square() / d[0].numel()
        slope = count - per_row(weight, d) * gradient
        slope = slope / per_row(flat_norm(slope, Norm.LINF).clamp(min=1e-30), d)
        first = _BETA1 * state.first + (1 - _BETA1) * slope
        second = _BETA2 * state.second + (1 - _BETA2) * slope.square()
        wave = 0.55 + 0.45 * torch.cos(torch.pi * state.turn / self.steps)
        rate = self.step_size * wave
        size = (second / per_row(1 - _BETA2**turn, d)).sqrt() + 1e-8
        d = d - per_row(rate / (1 - _BETA1**turn), d) * first / size
        d = (x + d).clamp(0, 1) - x
        moves = self.cut_step * rate
        cut = (state.cut + torch.where(value > 0, moves, -moves)).clamp(0, 1)
        adv = torch.where(d.abs() > per_row(cut, d), (x + d).clamp(0, 1), x)
        return Sparse(adv, first, second, cut, state.spread, turn)
