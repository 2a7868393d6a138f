"""The fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044, algorithm 1)."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.hyperplane import onto_hyperplane
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_AGAIN = 3  # targets that are tried again, twice each, when all were tried
# As in AutoAttack: else rounding sends pixels to a corner where the box does not reach the border.
_FLAT = 1e-8
_NEAR, _FAR = 0.1, 0.5  # a new run starts so far from the best example, or from the image


@dataclass(frozen=True)
class Tour:
    """Where each slot stands on its run to the border of one of `targets` (N, T).

    `least` is the size of the smallest example of this run, `reach` (N, T) of any run by target;
    `idle` counts the moves since the run found a smaller one.
    """

    adv: Tensor
    turn: Tensor
    idle: Tensor
    run: Tensor
    least: Tensor
    targets: Tensor
    reach: Tensor


@dataclass(frozen=True)
class Pull:
    """How a move is drawn towards the image: the most, the overshoot, the way back.

    Components whose slope is at most `flat` do not move.
    """

    alpha_max: float
    eta: float
    beta: float
    flat: float = 0.0


@dataclass(frozen=True)
class FAB(Attack):
    """Walks along the border to one class after the other towards the point nearest to the image.

    Each move goes onto the linearised border, a little beyond, and is drawn towards the projection
    of the image itself. After an example is found, the walk goes on from between it and the image.
    This is the targeted form, which costs one backward pass a move. Unlike in the paper, the
    targets with the smallest examples are then tried again, from beside the best example and from
    a random point in turn.

    Args:
        steps: moves in all.
        targets: classes tried, the largest clean logits first; 9 in the paper.
        moves: of one run towards one class, fewer where steps do not suffice for all targets; 100
            in the paper.
        patience: moves without a smaller example (by a hundredth) after which a run ends.
        alpha_max: how much the image draws at the most; 0.1 in the paper.
        eta: how far beyond the border a move goes; 1.05 in the paper.
        beta: how far from the image the walk goes on after a success; 0.9 in the paper.
        twice: ask again after an example was drawn towards the image, as in the paper; else the
            linearisation at the example itself serves, for one forward pass less.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 1000
    targets: Annotated[int, Field(ge=1)] = 9
    moves: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 30
    alpha_max: Annotated[float, Field(gt=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9
    twice: bool = False

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Tour:
        """At the image, on the way to the class with the largest logit but its own."""
        targets = y[:, None]
        if not oracle.targeted:
            logits = oracle.logits(x).scatter(1, y[:, None], -torch.inf)
            targets = logits.topk(min(self.targets, oracle.classes - 1), dim=1).indices
        nothing = torch.zeros_like(y)
        least = x.new_full((len(x),), torch.inf)
        reach = least[:, None].expand(targets.shape)
        return Tour(x, nothing, nothing, nothing, least, targets, reach)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Tour) -> Tour:
        """One move towards the border of the class in turn."""
        target = state.targets.gather(1, _place(state))

        def gap(logits: Tensor) -> Tensor:
            other = logits.scatter(1, target, -torch.inf).argmax(1, keepdim=True)
            own = other if oracle.targeted else y[:, None]
            ones = torch.ones_like(target, dtype=logits.dtype)
            return torch.zeros_like(logits).scatter(1, target, ones).scatter(1, own, -ones)[:, None]

        norm, at = oracle.threat.norm, state.adv
        if self.twice:
            fooled = Loss.MARGIN(oracle.logits(at), y, targeted=oracle.targeted) > 0
            at = torch.where(per_row(fooled, x), x + self.beta * (at - x), at)
        logits, normals = oracle.gradients(at, gap)
        own = logits.scatter(1, target, -torch.inf).amax(1) if oracle.targeted else None
        left = logits.gather(1, y[:, None]).squeeze(1) if own is None else own
        value = logits.gather(1, target).squeeze(1) - left
        if not self.twice:
            fooled = value > 0
        size = torch.where(fooled, flat_norm(state.adv - x, norm), torch.inf)
        pull = Pull(self.alpha_max, self.eta, self.beta)
        if self.twice:  # drawn already
            pull = Pull(self.alpha_max, self.eta, beta=1.0, flat=_FLAT)
        adv = approach(pull, norm, x, at, value, normals[:, 0])
        turn, idle = state.turn + 1, (state.idle + 1).masked_fill(size < 0.99 * state.least, 0)
        moved = replace(state, adv=adv, turn=turn, idle=idle, least=state.least.minimum(size))
        most = min(self.moves, max(1, self.steps // state.targets.shape[1]))
        over = (turn >= most) | (idle >= self.patience)
        return _next_run(oracle, x, rng, moved, over) if bool(over.any()) else moved


@dataclass(frozen=True)
class FABT(FAB):
    """The targeted form as in AutoAttack: at a fixed eps, every class once.

    A sample leaves as soon as it is fooled within eps. With a targeted goal all steps go to that
    class.

    Args:
        steps: moves in all.
        targets: classes tried, the largest clean logits first; 9 in AutoAttack.
        moves: of one run towards one class; 100 in AutoAttack.
        patience: moves without a smaller example after which a run ends; none does in AutoAttack.
        alpha_max: how much the image draws at the most.
        eta: how far beyond the border a move goes.
        beta: how far from the image the walk goes on after a success.
        twice: ask again after an example was drawn towards the image.
    """

    minimal = False
    roams = True

    steps: int = 900
    targets: Annotated[int, Field(ge=1)] = 9
    patience: Annotated[int, Field(ge=1)] = 100
    twice: bool = True

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf at a finite eps."""
        return super().supports(threat) and isinstance(threat, Lp) and threat.eps < float("inf")


def _place(state: Tour) -> Tensor:
    """(N, 1) which of the targets each slot is on the way to."""
    count = state.targets.shape[1]
    later = (state.run - count) // 2 % min(count, _AGAIN)
    return torch.where(state.run < count, state.run, later)[:, None]


def _next_run(oracle: Oracle[Lp], x: Tensor, rng: Rng, state: Tour, over: Tensor) -> Tour:
    """Note what the run reached and start the next; rank the targets when all were tried."""
    count, norm, place = state.targets.shape[1], oracle.threat.norm, _place(state)
    known = state.reach.gather(1, place)
    least = torch.where(over[:, None], state.least[:, None].minimum(known), known)
    reach = state.reach.scatter(1, place, least)
    run = torch.where(over, state.run + 1, state.run)
    order = reach.argsort(dim=1, stable=True)
    rank = (over & (run == count))[:, None]
    unit = replace(oracle.threat, eps=1.0).random_point(x, rng) - x
    unit = unit / per_row(flat_norm(unit, norm).clamp(min=1e-12), x)
    widest = 0.1 * flat_norm(torch.ones_like(x), norm)
    size = per_row(torch.where(oracle.found, flat_norm(oracle.best - x, norm), widest), x)
    near = per_row((run - count) % 2 == 0, x) & per_row(oracle.found, x)
    start = torch.where(near, oracle.best + _NEAR * size * unit, x + _FAR * size * unit)
    start = torch.where(per_row(run < count, x), x, start.clamp(0, 1))
    return Tour(
        adv=torch.where(per_row(over, x), start, state.adv),
        turn=state.turn.masked_fill(over, 0),
        idle=state.idle.masked_fill(over, 0),
        run=run,
        least=state.least.masked_fill(over, torch.inf),
        targets=torch.where(rank, state.targets.gather(1, order), state.targets),
        reach=torch.where(rank, reach.gather(1, order), reach),
    )


def approach(
    pull: Pull, norm: Norm, x: Tensor, at: Tensor, value: Tensor, normal: Tensor
) -> Tensor:
    """The biased step from `at` onto the border where `value` (N,) with gradient `normal` is 0."""
    # A point that fools is drawn towards the image first (the paper's backward step).
    adv = torch.where(per_row(value > 0, x), x + pull.beta * (at - x), at)
    normal = normal.masked_fill(normal.abs() <= pull.flat, 0.0)
    flat = normal.flatten(1)
    top = flat.abs().amax(1).clamp(min=torch.finfo(x.dtype).tiny)
    normal, value = normal / per_row(top, x), value / top
    along = (flat / top[:, None] * (at - adv).flatten(1)).sum(1)
    here = value - along
    there = here - (normal.flatten(1) * (adv - x).flatten(1)).sum(1)
    both = onto_hyperplane(
        torch.cat([adv, x]), torch.cat([normal, normal]), -torch.cat([here, there]), norm
    )
    here_move, image_move = both[: len(x)], both[len(x) :]
    a, b = flat_norm(here_move, norm), flat_norm(image_move, norm)
    alpha = (a / (a + b).clamp(min=1e-12)).clamp(max=pull.alpha_max)
    weight = per_row(alpha, x)
    point = (1 - weight) * (adv + pull.eta * here_move) + weight * (x + pull.eta * image_move)
    moved = per_row(top > torch.finfo(x.dtype).tiny, x)
    return torch.where(moved, point.clamp(0, 1), adv)
