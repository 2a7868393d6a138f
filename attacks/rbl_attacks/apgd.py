"""Auto-PGD, which finds its own step size (Croce and Hein 2020, arXiv:2003.01690, section 3)."""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row, project_l1_box
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_MOMENTUM = 0.75
_RISING = 0.75  # the share of moves that must raise the loss for the step size to stay
_WIDE = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # L1: radius in eps, share of the steps
_PLAIN = ((1.0, 1.0),)


class Start(StrEnum):
    """Where a run starts: uniformly in the ball, at a corner of it, or at vertical stripes."""

    UNIFORM = "uniform"
    CORNER = "corner"
    STRIPES = "stripes"


@dataclass(frozen=True)
class Ascent:
    """Where each slot stands, the best point of its run, and what its checkpoints need."""

    adv: Tensor
    prev: Tensor
    best: Tensor
    slope: Tensor
    value: Tensor
    top: Tensor
    top_before: Tensor
    step: Tensor
    halved: Tensor
    rises: Tensor
    turn: Tensor
    phase: Tensor
    dense: Tensor
    support: Tensor


A = TypeVar("A", bound=Ascent)


@dataclass(frozen=True)
class APGD(Attack):
    """Ascent with momentum whose step size is halved, from the best point, where progress stalls.

    In L1 it is the version of arXiv:2103.01208, section 3: sparse moves, the exact projection on
    ball and box, and three radii (3, 2 and 1 eps). After a halving the momentum starts anew.

    Args:
        steps: moves; 100 in AutoAttack.
        loss: what to climb.
        start_at: `uniform` in the ball; `corner`, the longest move with random signs; or `stripes`,
            the same with one sign a channel and column, as Square starts.
    """

    needs = Access.GRADIENTS

    steps: int = 100
    loss: Loss = Loss.CROSS_ENTROPY
    start_at: Start = Start.UNIFORM

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0 and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Ascent:
        """At a random point of the threat."""
        return begin(oracle.threat, x, rng, self.start_at)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Ascent) -> Ascent:
        """One evaluation and one move."""
        value, gradient = oracle.value_and_gradient(state.adv, y, self.loss)
        return climb(oracle.threat, (self.steps,), x, state, value, gradient)


def begin(threat: Lp, x: Tensor, rng: Rng, start_at: Start = Start.UNIFORM) -> Ascent:
    """A new run from a random point, in L1 of the widest ball."""
    wide = replace(threat, eps=_phases(threat.norm)[0][0] * threat.eps)
    if start_at is Start.UNIFORM:
        adv = wide.random_point(x, rng)
    else:
        signs = rng.signs(*x.shape[1:] if start_at is Start.CORNER else (x.shape[1], 1, x.shape[3]))
        adv = wide.project(x, x + wide.farthest(signs.expand_as(x), x, wide.eps))
    zeros = x.new_zeros(len(x))
    nothing = zeros.long()
    return Ascent(
        adv=adv,
        prev=adv,
        best=adv,
        slope=torch.zeros_like(x),
        value=zeros + torch.inf,
        top=zeros - torch.inf,
        top_before=zeros - torch.inf,
        step=zeros + (1.0 if threat.norm is Norm.L1 else 2.0),
        halved=nothing.bool(),
        rises=nothing,
        turn=nothing,
        phase=nothing,
        dense=zeros + 0.2,
        support=zeros + x[0].numel() if len(x) else zeros,
    )


def climb(
    threat: Lp,
    steps: tuple[int, ...],
    x: Tensor,
    state: A,
    value: Tensor,
    gradient: Tensor,
    which: Tensor | None = None,
) -> A:
    """The next point of each slot, given loss and gradient where it stands.

    `which` (N,) is how many of `steps` moves a slot's run has; the first of them if None.
    """
    kind = torch.zeros_like(state.turn) if which is None else which
    turn = state.turn + 1
    better = value > state.top
    rows = per_row(better, x)
    state = replace(
        state,
        best=torch.where(rows, state.adv, state.best),
        slope=torch.where(rows, gradient, state.slope),
        top=torch.where(better, value, state.top),
        rises=state.rises + (value > state.value),
        value=value,
        turn=turn,
    )
    spans = _spans(threat.norm, steps)
    table = torch.tensor(spans, device=x.device)
    span = table[kind, state.phase, turn.clamp(max=table.shape[2] - 1)]
    state, back = _checked(threat, x, state, span)
    base, prev = state.adv, state.prev
    if bool(back.any()):
        rows = per_row(back, x)
        base = torch.where(rows, state.best, base)
        prev = torch.where(rows, state.best, prev)
        gradient = torch.where(rows, state.slope, gradient)
    if threat.norm is Norm.L1:
        moved = replace(state, adv=_sparse_move(threat, x, state, base, gradient), prev=base)
        return _next_phase(threat, steps, x, moved, kind)
    project = threat.projection(x)
    # base + weight * move + momentum * (base - prev), in place: memory is what limits these sums
    ascent = threat.steepest(gradient, base).mul_(per_row(state.step * threat.eps, x))
    move = project(ascent.add_(base)).sub_(base)
    first = per_row(turn == 1, x)
    momentum = torch.where(first, 0.0, 1 - _MOMENTUM)
    weight = torch.where(first, 1.0, _MOMENTUM)
    adv = project(move.mul_(weight).add_(base).add_((base - prev).mul_(momentum)))
    return replace(state, adv=adv, prev=base)


def _checked(threat: Lp, x: Tensor, state: A, span: Tensor) -> tuple[A, Tensor]:
    """Adapt the step size of the slots at a checkpoint; which of them go back to their best."""
    check = span > 0
    if not bool(check.any()):
        return state, check
    if threat.norm is Norm.L1:
        support = flat_norm(state.best - x, Norm.L0)
        fewer = check & (support < 0.95 * state.support)
        slower = (state.step / 1.5).clamp(min=0.1)
        step = torch.where(fewer, 1.0, torch.where(check, slower, state.step))
        dense = torch.where(check, support / x[0].numel() / 1.5, state.dense)
        kept = torch.where(check, support, state.support)
        return replace(state, step=step, dense=dense, support=kept), fewer
    few = state.rises < _RISING * span
    stalled = ~state.halved & (state.top <= state.top_before)
    halve = check & (few | stalled)
    state = replace(
        state,
        step=torch.where(halve, state.step / 2, state.step),
        halved=torch.where(check, halve, state.halved),
        top_before=torch.where(check, state.top, state.top_before),
        rises=state.rises.masked_fill(check, 0),
    )
    return state, halve


def _sparse_move(threat: Lp, x: Tensor, state: Ascent, base: Tensor, gradient: Tensor) -> Tensor:
    radius = _radius(threat, state.phase)
    rows = gradient.flatten(1)
    count = (state.dense * rows.shape[1]).long().clamp(min=1, max=rows.shape[1])
    ordered = rows.abs().sort(dim=1, descending=True).values
    least = ordered.gather(1, count[:, None] - 1)
    signs = rows.sign() * (rows.abs() >= least)
    move = signs / signs.abs().sum(1, keepdim=True).clamp(min=1)
    moved = base + per_row(state.step * radius, x) * move.reshape(x.shape)
    return (x + project_l1_box(x, moved - x, radius)).clamp(0, 1)


def _next_phase(threat: Lp, steps: tuple[int, ...], x: Tensor, state: A, kind: Tensor) -> A:
    """In L1: a slot that used up a radius goes on from its best point in the next smaller one."""
    shares = torch.tensor([lengths(threat.norm, n) for n in steps], device=x.device)
    over = (state.turn >= shares[kind, state.phase]) & (state.phase < shares.shape[1] - 1)
    if not bool(over.any()):
        return state
    phase = torch.where(over, state.phase + 1, state.phase)
    rows = per_row(over, x)
    inner = (x + project_l1_box(x, state.best - x, _radius(threat, phase))).clamp(0, 1)
    return replace(
        state,
        adv=torch.where(rows, inner, state.adv),
        prev=torch.where(rows, inner, state.prev),
        best=torch.where(rows, inner, state.best),
        value=torch.where(over, torch.inf, state.value),
        top=torch.where(over, -torch.inf, state.top),
        step=torch.where(over, 1.0, state.step),
        turn=state.turn.masked_fill(over, 0),
        phase=phase,
    )


def _radius(threat: Lp, phase: Tensor) -> Tensor:
    factors = torch.tensor([factor for factor, _ in _phases(threat.norm)], device=phase.device)
    return threat.eps * factors[phase]


def _phases(norm: Norm) -> tuple[tuple[float, float], ...]:
    return _WIDE if norm is Norm.L1 else _PLAIN


@cache
def lengths(norm: Norm, steps: int) -> tuple[int, ...]:
    """Moves of each phase; together all of the steps."""
    shares = [int(share * steps) for _, share in _phases(norm)][:-1]
    return (*shares, steps - sum(shares))


@cache
def _spans(norm: Norm, steps: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each number of moves, phase and turn: moves since the last checkpoint, 0 between them."""
    longest = max(steps)
    return tuple(
        tuple(_checkpoints(norm, moves, longest) for moves in lengths(norm, n)) for n in steps
    )


def _checkpoints(norm: Norm, moves: int, longest: int) -> tuple[int, ...]:
    row = [0] * (longest + 1)
    if norm is Norm.L1:
        every = max(1, int(0.04 * moves))
        for turn in range(every, moves, every):
            row[turn] = every
        return tuple(row)
    turn, span = 0, max(1, int(0.22 * moves))
    while turn + span < moves:
        turn += span
        row[turn] = span
        span = max(span - max(1, int(0.03 * moves)), max(1, int(0.06 * moves)))
    return tuple(row)
