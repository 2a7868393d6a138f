"""Sigma-zero: few changed components by a smooth count (Cina et al. 2025, arXiv:2402.01879)."""

from dataclasses import dataclass, replace
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
_SCATTERED = 0.1  # share of the components that a new start draws
_PATIENCE = 40  # moves of the exchange without a smaller example before it starts anew
_TENURE = 10.0  # moves, on average, for which a component that left stays out
_FIRMNESS = 5.0  # and for which one that came in stays in
_SPARED = 0.5  # share of the margin that dropping components must leave
_STRETCH = 0.5  # largest move of a changed component
_BLUR = 0.3  # by which share ranks are blurred, so that the exchange does not go in circles


@dataclass(frozen=True)
class Sparse:
    """Adam's state, the threshold below which a component is set back, and the clean spread.

    For the exchange: `until`, the move up to which a component may not be touched, and `age`, the
    moves since the last gain.
    """

    adv: Tensor
    first: Tensor
    second: Tensor
    cut: Tensor
    spread: Tensor
    turn: Tensor
    until: Tensor
    age: Tensor


@dataclass(frozen=True)
class SigmaZero(Attack):
    """Adam on the margin left plus a smooth count of changed components, with a moving threshold.

    The margin is divided by the spread of the clean logits, so that it weighs the same against the
    count for every model. Components are counted, not pixels. Two things differ from the paper: a
    short search is repeated from scattered starts, and the last part of the steps exchanges single
    components of the best example: the one that matters least leaves while the classifier is
    fooled, and the one that promises most enters while it is not (a tabu search, Glover 1989).

    Args:
        steps: moves in all; 1000 in the paper.
        span: moves of one search; the paper makes one search of all steps.
        exchange: share of the steps that exchanges components; 0 in the paper.
        step_size: Adam's rate at first; 1 in the paper. It falls to a tenth.
        sigma: how sharply the count tells small changes from none; 0.001 in the paper.
        cut: the first threshold; 0.3 in the paper.
        cut_step: by how much the threshold moves, times the rate; 0.01 in the paper.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 1000
    span: Annotated[int, Field(ge=1)] = 50
    exchange: Annotated[float, Field(ge=0, le=1)] = 0.35
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
        zeros, nothing = torch.zeros_like(x), torch.zeros_like(y)
        cut = x.new_full((len(x),), self.cut)
        return Sparse(x, zeros, zeros, cut, spread, nothing, zeros, nothing)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Sparse) -> Sparse:
        """One move of Adam, or one exchange; at the end of a search, the next start."""
        value, gradient = oracle.value_and_gradient(state.adv, y, Loss.MARGIN)
        part = int((1 - self.exchange) * self.steps)
        turn = state.turn + 1
        late = state.turn >= part
        over = turn % self.span == 0
        coin = rng.uniform() < 0.5
        moved = searched = self._searched(x, state, value, gradient)
        if bool(late.any()):
            swapped = _exchanged(oracle, x, rng, state, value, gradient)
            over = torch.where(late, swapped.age > _PATIENCE, over)
            moved = replace(
                searched,
                adv=torch.where(per_row(late, x), swapped.adv, searched.adv),
                until=torch.where(per_row(late, x), swapped.until, state.until),
                age=torch.where(late & ~over, swapped.age, 0),
            )
        first_late = per_row((turn == part) & oracle.found, x)
        clear = per_row(over, x)
        adv = moved.adv
        if bool(over.any()):
            base = torch.where(per_row(late | coin, x), oracle.best, x)
            adv = torch.where(clear, _scattered(base, rng.branch(0)), adv)
        return replace(
            moved,
            adv=torch.where(first_late, oracle.best, adv),
            first=searched.first.masked_fill(clear, 0),
            second=searched.second.masked_fill(clear, 0),
            cut=torch.where(over, self.cut, searched.cut),
            turn=turn,
            until=moved.until.masked_fill(clear, 0),
        )

    def _searched(self, x: Tensor, state: Sparse, value: Tensor, gradient: Tensor) -> Sparse:
        """One move of Adam; then small changes are undone."""
        done = state.turn % self.span
        d = state.adv - x
        weight = _SPREAD / state.spread * (value <= 0)
        square = d.square()
        count = 2 * d * self.sigma / (square + self.sigma).square() / d[0].numel()
        slope = count - per_row(weight, d) * gradient
        slope = slope / per_row(flat_norm(slope, Norm.LINF).clamp(min=1e-30), d)
        first = _BETA1 * state.first + (1 - _BETA1) * slope
        second = _BETA2 * state.second + (1 - _BETA2) * slope.square()
        wave = 0.55 + 0.45 * torch.cos(torch.pi * done / min(self.span, self.steps))
        rate = self.step_size * wave
        size = (second / per_row(1 - _BETA2 ** (done + 1), d)).sqrt() + 1e-8
        d = d - per_row(rate / (1 - _BETA1 ** (done + 1)), d) * first / size
        d = (x + d).clamp(0, 1) - x
        moves = self.cut_step * rate
        cut = (state.cut + torch.where(value > 0, moves, -moves)).clamp(0, 1)
        adv = torch.where(d.abs() > per_row(cut, d), (x + d).clamp(0, 1), x)
        return replace(state, adv=adv, first=first, second=second, cut=cut)


def _scattered(base: Tensor, rng: Rng) -> Tensor:
    """`base` (N, ...) with a share of its components drawn from the two ends of the box."""
    shape = base.shape[1:]
    ends = (rng.signs(*shape) + 1) / 2
    return torch.where(rng.uniform(*shape) < _SCATTERED, ends, base)


def _exchanged(
    oracle: Oracle[Lp], x: Tensor, rng: Rng, state: Sparse, value: Tensor, gradient: Tensor
) -> Sparse:
    """The next set of changed components, by the linear approximation at the present point.

    Fooled: those of least gain leave, as many as half of the margin pays for, and one at least.
    Not fooled: the changed ones move uphill, and those of most gain enter at the end of the box,
    as many as the margin asks for, but fewer in all than the best example has; where there is no
    room, one leaves first. What has just left stays out for a while and what came in stays in.
    """
    start, slope, d = x.flatten(1), gradient.flatten(1), (state.adv - x).flatten(1)
    now, until = state.turn[:, None].to(x.dtype), state.until.flatten(1)
    most = torch.where(oracle.found, flat_norm(oracle.best - x, Norm.L0), start.shape[1])[:, None]
    lot = rng.uniform(start.shape[1])
    blur = 1 + _BLUR * (2 * lot - 1)
    changed, resting = d != 0, until > now
    gap = value[:, None]

    worth = slope * d
    keen, loss = _ordered(torch.where(changed, -worth * blur, -torch.inf), worth * changed)
    dropped = changed & ((loss <= (1 - _SPARED) * gap) | (keen == 0))
    fewer = d.masked_fill(dropped, 0)

    climb = slope * changed
    climb = climb / climb.abs().amax(1, keepdim=True).clamp(min=1e-30)
    moved = (start + d + _STRETCH * climb).clamp(0, 1) - start
    moved = torch.where(changed & (moved == 0), 0.01 * d, moved)
    full = changed.sum(1, keepdim=True) > most - 2
    place, _ = _ordered(torch.where(changed & ~resting, -worth * blur, -torch.inf), worth)
    leaving = full & changed & ~resting & (place == 0)
    moved = moved.masked_fill(leaving, 0)
    room = torch.where(slope > 0, 1 - start, start)
    gain = slope.abs() * room
    open_to = (moved == 0) & ~resting & ~leaving & (gain > 0)
    place, sum_to = _ordered(torch.where(open_to, gain * blur, -torch.inf), gain * open_to)
    needed = (sum_to - gain * open_to < gap.abs()) | (place == 0)
    entering = open_to & needed & (place < most - 1 - (moved != 0).sum(1, keepdim=True))
    more = torch.where(entering, slope.sign() * room, moved)

    fooled = gap > 0
    d = torch.where(fooled, fewer, more)
    until = torch.where(changed & (d == 0), now + _TENURE * (0.5 + lot), until)
    until = torch.where(~fooled & entering, now + _FIRMNESS * (0.5 + lot), until)
    small = (value > 0) & (changed.sum(1, keepdim=True) <= most).squeeze(1)
    age = torch.where(small, 0, state.age + 1)
    return replace(state, adv=x + d.reshape(x.shape), until=until.reshape(x.shape), age=age)


def _ordered(score: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
    """Of each component its place by falling score, and the sum of amounts up to that place."""
    order = score.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(score.shape[1], device=score.device).expand_as(order)
    summed = amount.gather(1, order).cumsum(1)
    nothing = torch.zeros_like(order)
    return nothing.scatter(1, order, place), torch.zeros_like(summed).scatter(1, order, summed)
