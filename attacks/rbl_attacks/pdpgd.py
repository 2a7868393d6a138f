"""Primal-dual proximal gradient (Matyasko and Chau 2021, arXiv:2106.01538, algorithm 2)."""

from dataclasses import dataclass
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

_BETA1, _BETA2 = 0.9, 0.999
_HALVINGS = 30
_LAST = 0.01  # what is left of the rates at the end of either part
_POLISH = 0.7  # share of the steps after which the search starts again from the best example
_CLOSE = 0.3  # rate of the second part, by the size of the best example
_DAMPING = 0.5  # the weight's answer to where the point is now, beside its slow growth
# Tuned on MNIST and CIFAR-10: the rate, the least stiffness, the first logarithm of the weight.
_RATE = {Norm.L1: 0.1, Norm.L2: 0.2, Norm.LINF: 0.1}
_FLOOR = {Norm.L1: 0.2, Norm.L2: 0.05, Norm.LINF: 0.1}
_WEIGHT = {Norm.L1: 4.6, Norm.L2: 0.0, Norm.LINF: 0.0}


@dataclass(frozen=True)
class Saddle:
    """The point, Adam's moments, the logarithm of the dual weight, the first rate, the moves."""

    adv: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    rate: Tensor
    turn: Tensor


@dataclass(frozen=True)
class PDPGD(Attack):
    """Adam on the margin left, and the proximal operator of the norm itself after every move.

    The weight of the margin against the norm is the dual variable: it grows while the classifier
    is not fooled and shrinks while it is. Four things differ from the paper: the gradient is
    divided by its dual norm, so that a weight means the same for every model; the weight also
    answers to the present point, which damps its swings; the proximal operator is taken exactly in
    Adam's metric, whose small entries are raised; and in L1 and L2 the last part of the search
    starts from the best example with plain gradients.

    Args:
        steps: moves; 500 in the paper.
        primal: largest rate of the primal moves in pixel values, falling to a hundredth; 0 for 0.2
            in L2 and the paper's 0.1 in L1 and Linf.
        dual: rate of the weight's logarithm at first; 0.1 in the paper.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 500
    primal: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    dual: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Saddle:
        """At the image itself."""
        nothing = torch.zeros_like(x)
        zeros = x.new_zeros(len(x))
        weight = zeros + _WEIGHT[oracle.threat.norm]
        return Saddle(x, nothing, nothing, weight, zeros, torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Saddle) -> Saddle:
        """One primal and one dual move."""
        norm = oracle.threat.norm
        turn = state.turn + 1
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        gradient = free(gradient, state.adv)
        slope = flat_norm(gradient, norm.dual).clamp(min=1e-30)
        unit = gradient / per_row(slope, x)
        first = _BETA1 * state.first + (1 - _BETA1) * unit
        second = _BETA2 * state.second + (1 - _BETA2) * unit.square()
        most = self.primal or _RATE[norm]
        rate = torch.where(state.turn == 0, (value.abs() / slope).clamp(max=most), state.rate)

        part = int(_POLISH * self.steps) if norm is not Norm.LINF else self.steps
        late = state.turn >= part
        done = torch.where(
            late, (state.turn - part) / max(1, self.steps - part), state.turn / max(1, part)
        )
        falling = _LAST ** done.to(x.dtype)
        close = _CLOSE * flat_norm(oracle.best - x, norm)
        length = torch.where(late, close, rate) * falling
        wanted = torch.where(value > 0, -1.0, 1.0)
        weight = state.weight + self.dual * falling * wanted
        metric = (second / per_row(1 - _BETA2**turn, x)).sqrt()
        top = per_row(flat_norm(metric, Norm.LINF), x)
        mean = first / per_row(1 - _BETA1**turn, x) / metric.clamp(min=1e-12)
        stiff = metric.maximum(_FLOOR[norm] * top).clamp(min=1e-12)
        plain = per_row(late, x)
        push = per_row(length, x) * torch.where(plain, unit, mean)
        pull = per_row(length * (-weight - _DAMPING * wanted).exp(), x)
        d = shrunk(state.adv - x + push, pull / torch.where(plain, 1.0, stiff), norm)

        again = (turn == part) & oracle.found
        adv = torch.where(per_row(again, x), oracle.best, (x + d).clamp(0, 1))
        return Saddle(adv, first, second, weight.masked_fill(again, 0), rate, turn)


def shrunk(d: Tensor, length: Tensor, norm: Norm) -> Tensor:
    """The proximal operator of a norm in a diagonal metric.

    Args:
        d: (N, ...) points.
        length: (N, ...) for each component, the multiple of the norm by its stiffness.
        norm: L1, L2 or Linf.

    Returns:
        The z (N, ...) with the least norm(z) + sum of (z - d)^2 / (2 length), up to 2^-30 of its
        length in L2.
    """
    size = d.abs()
    match norm:
        case Norm.L1:
            return d.sign() * (size - length).clamp(min=0)
        case Norm.L2:
            high = flat_norm(d, Norm.L2)
            low = torch.zeros_like(high)
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                wide = per_row(middle, d)
                longer = flat_norm(d * (wide / (wide + length)), Norm.L2) > middle
                low, high = torch.where(longer, middle, low), torch.where(longer, high, middle)
            wide = per_row(low, d)
            return d * (wide / (wide + length).clamp(min=1e-30))
    order = size.flatten(1).argsort(1, descending=True)
    tall, stiff = size.flatten(1).gather(1, order), 1 / length.flatten(1).gather(1, order)
    level = ((tall * stiff).cumsum(1) - 1) / stiff.cumsum(1)
    last = ((tall > level).sum(1, keepdim=True) - 1).clamp(min=0)
    cut = level.gather(1, last).clamp(min=0).squeeze(1)
    return d.sign() * size.minimum(per_row(cut, d))
