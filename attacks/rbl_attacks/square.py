"""Square Attack: random search with squares (Andriushchenko et al. 2020, arXiv:1912.00049)."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.loss import Loss, span_of
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries, table 1


@dataclass(frozen=True)
class _Draws:
    """Random numbers for several proposals a slot, one after the other: (N * count, ...)."""

    rng: Rng
    count: int

    def uniform(self, *shape: int) -> Tensor:
        return self.rng.uniform(self.count, *shape).flatten(0, 1)

    def signs(self, *shape: int) -> Tensor:
        return self.rng.signs(self.count, *shape).flatten(0, 1)


@dataclass(frozen=True)
class Search:
    """The proposals, the best point so far with its loss, queries made, and whether to give up."""

    asked: Tensor
    best: Tensor
    value: Tensor
    turn: Tensor
    done: Tensor

    @property
    def adv(self) -> Tensor:
        """(N, ...) the first of the proposals (N, at_once, ...)."""
        return self.asked[:, 0]


@dataclass(frozen=True)
class Square(Attack):
    """Changes a random square of the image and keeps the change where the margin rises.

    Place, side and signs are drawn for each sample by itself. The squares shrink as in the paper's
    schedule, scaled to `horizon`.

    Args:
        steps: moves, a query each unless `at_once` says more; 5000 in AutoAttack, 10000 in the
            paper.
        p_init: share of the image that the first squares cover; 0.8 in AutoAttack.
        horizon: queries that the schedule is spread over; all of its own if None. AutoAttack makes
            5000 queries of the schedule for 10000.
        at_once: squares tried from one point in a move, of which the best counts; 1 in the paper.
            Several take less time where few samples are left to fill a batch.
        patience: a sample is given up when its margin, in units of the largest less the smallest
            logit, times the queries made so far is below minus this; never in the paper. The
            margins of samples that break in the end shrink about as queries grow.
    """

    needs = Access.SCORES

    steps: int = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    horizon: Annotated[int, Field(ge=1)] | None = None
    at_once: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[float, Field(gt=0)] = math.inf

    def supports(self, threat: Threat) -> bool:
        """Linf and L2."""
        if not isinstance(threat, Lp) or threat.norm not in (Norm.LINF, Norm.L2):
            return False
        return threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Search:
        """Linf: vertical stripes of plus or minus eps. L2: a grid of humps."""
        threat, (images, draws) = oracle.threat, self._each(x, rng)
        if threat.norm is Norm.LINF:
            move = threat.eps * draws.signs(x.shape[1], 1, x.shape[3])
        else:
            move = _to_length(_grid(images, draws), threat.eps)
        asked = threat.project(images, images + move).reshape(-1, self.at_once, *x.shape[1:])
        never, none = x.new_full((len(x),), -torch.inf), torch.zeros_like(y)
        return Search(asked, x, never, none, done=none.bool())

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Search) -> Search:
        """Ask about the proposals, keep the best if it is better, propose the next changes."""
        logits = oracle.logits(state.asked)
        each, labels = logits.flatten(0, 1), y.repeat_interleave(self.at_once)
        values = Loss.MARGIN(each, labels, targeted=oracle.targeted)
        value, which = values.reshape(len(x), self.at_once).max(1)
        rows = torch.arange(len(x), device=x.device)
        better = value > state.value
        best = torch.where(per_row(better, x), state.asked[rows, which], state.best)
        value = torch.where(better, value, state.value)
        turn = state.turn + self.at_once
        done = -value * turn > self.patience * span_of(logits[rows, which])
        asked = self._changed(oracle.threat, x, best, self._side(x, turn), rng)
        return Search(asked, best, value, turn, done)

    def _changed(self, threat: Lp, x: Tensor, best: Tensor, side: Tensor, rng: Rng) -> Tensor:
        """(N, at_once, ...): `best`, each time with another square changed."""
        images, draws = self._each(x, rng)
        base, sides = self._repeated(best), self._repeated(side)
        if threat.norm is Norm.LINF:
            changed = _with_square(threat, images, base, sides, draws)
        else:
            changed = _with_humps(threat, images, base, _odd(images, sides), draws)
        return changed.reshape(-1, self.at_once, *x.shape[1:])

    def _each(self, x: Tensor, rng: Rng) -> tuple[Tensor, _Draws]:
        """(N * at_once, ...) the image of every proposal, and random numbers for each."""
        return self._repeated(x), _Draws(rng, self.at_once)

    def _repeated(self, rows: Tensor) -> Tensor:
        """(N * at_once, ...) each row once a proposal; a view where there is one."""
        return rows[:, None].expand(-1, self.at_once, *rows.shape[1:]).flatten(0, 1)

    def _side(self, x: Tensor, turn: Tensor) -> Tensor:
        """(N,) side of each slot's square."""
        horizon = self.horizon or self.steps * self.at_once
        marks = torch.tensor(_HALVINGS, device=x.device) * horizon / 10000
        share = self.p_init / 2.0 ** (turn[:, None] > marks).sum(1)
        rows, columns = x.shape[2:]
        side = (share * rows * columns).sqrt().round().long()
        return side.clamp(min=1, max=min(rows, columns))


def _odd(x: Tensor, side: Tensor) -> Tensor:
    """(N,) odd sides of 3 or more, as far as the image allows: L2's squares have a middle."""
    return (side.clamp(min=3) // 2 * 2 + 1).clamp(max=min(x.shape[2:]))


def _window(x: Tensor, side: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """(N, rows) and (N, columns): each pixel's place in a square of the side at `place`.

    Outside of the square it is -1. `place` (N, 2) is in (0, 1)^2.
    """
    within = []
    for axis, length in enumerate(x.shape[2:]):
        first = (place[:, axis] * (length - side + 1)).floor().long()[:, None]
        offset = torch.arange(length, device=x.device) - first
        within.append(torch.where((offset >= 0) & (offset < side[:, None]), offset, -1))
    return within[0], within[1]


def _inside(window: tuple[Tensor, Tensor]) -> Tensor:
    """(N, 1, rows, columns) bool: which pixels the square covers."""
    return (window[0] >= 0)[:, None, :, None] & (window[1] >= 0)[:, None, None, :]


def _with_square(threat: Lp, x: Tensor, best: Tensor, side: Tensor, rng: _Draws) -> Tensor:
    """Plus or minus eps, a sign a channel, inside a random square."""
    inside = _inside(_window(x, side, rng.uniform(2)))
    colour = threat.eps * rng.signs(x.shape[1], 1, 1)
    return torch.where(inside, (x + colour).clamp(0, 1), best)


def _with_humps(threat: Lp, x: Tensor, best: Tensor, side: Tensor, rng: _Draws) -> Tensor:
    """Move the perturbation of one square, and what length is left, into another (algorithm 3)."""
    channels = x.shape[1]
    places = rng.uniform(4)
    target, source = _window(x, side, places[:, :2]), _window(x, side, places[:, 2:])
    here = _inside(target)
    union = here | _inside(source)
    d = best - x
    unused = (threat.eps**2 - d.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
    length = ((d * union).square().sum((2, 3), keepdim=True) + unused / channels).sqrt()
    down, across = target[0][:, None, :, None], target[1][:, None, None, :]
    shape = _humps(down, across, per_row(rng.uniform() < 0.5, x), side) * here
    mixed = rng.signs(channels, 1, 1) * _unit(shape) + _unit(d * here)
    return threat.project(x, x + d * ~union + length * _unit(mixed))


def _grid(x: Tensor, rng: _Draws) -> Tensor:
    """(N, C, rows, columns): tiles of humps around the middle, five to the shorter side."""
    rows, columns = x.shape[2:]
    side = max(1, min(rows, columns) // 5)
    down, across = rows // side, columns // side
    upright = _spread(rng.uniform(1, down, across) < 0.5, side)
    signs = _spread(rng.signs(x.shape[1], down, across), side)
    place = torch.arange(side, device=x.device)
    sides = torch.full((len(x),), side, device=x.device)
    ys, xs = place.repeat(down)[None, None, :, None], place.repeat(across)[None, None, None]
    top, left = (rows - down * side) // 2, (columns - across * side) // 2
    grid = torch.zeros_like(x)
    middle = grid[:, :, top : top + down * side, left : left + across * side]
    middle.copy_(signs * _humps(ys, xs, upright, sides))
    return grid


def _spread(tiles: Tensor, side: int) -> Tensor:
    """Each value of `tiles` (N, C, down, across) as a square of the side."""
    return tiles.repeat_interleave(side, 2).repeat_interleave(side, 3)


def _humps(down: Tensor, across: Tensor, upright: Tensor, side: Tensor) -> Tensor:
    """(N, 1, rows, columns): a hump in one half of a square, a pit in the other (equation 2).

    Args:
        down: (N or 1, 1, rows, 1) place of each pixel within its square.
        across: (N or 1, 1, 1, columns) the same.
        upright: bool, spreads to the result's shape: the halves lie one upon the other.
        side: (N,) of the squares.
    """
    whole = per_row(side, down)
    half = whole // 2
    along, beside = torch.where(upright, down, across), torch.where(upright, across, down)
    second = along >= half
    middle = torch.where(second, half + (whole - half) // 2, half // 2)
    far = torch.maximum((along - middle).abs(), (beside - half).abs())
    most = max(down.shape[2], across.shape[3]) // 2 + 1
    terms = torch.arange(1, most + 1, device=down.device).square().reciprocal()
    sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
    height = (sums[half + 1] - sums[far.clamp(max=most)]).clamp(min=0)
    return torch.where(second, -height, height)


def _unit(d: Tensor) -> Tensor:
    """Each channel by its Euclidean length."""
    return d / d.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _to_length(d: Tensor, eps: float) -> Tensor:
    return d * per_row(eps / flat_norm(d, Norm.L2).clamp(min=1e-12), d)
