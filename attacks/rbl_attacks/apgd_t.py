"""Auto-PGD towards one class after the other (Croce and Hein 2020, arXiv:2003.01690, section 5)."""

import itertools
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.apgd import Ascent, begin, climb, lengths
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import flat_norm
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat


class Order(StrEnum):
    """Which classes are tried, and in which order."""

    LOGITS = "logits"
    MALT = "malt"


@dataclass(frozen=True)
class Chase(Ascent):
    """An ascent towards `targets[index]`; `came` (N, T) is the loss that each run came to."""

    targets: Tensor
    index: Tensor
    came: Tensor


@dataclass(frozen=True)
class APGDT(Attack):
    """APGD on the targeted difference-of-logits ratio, for several target classes in turn.

    With fewer than four classes the ratio is undefined and the plain difference of the two logits
    is climbed. With a targeted goal all steps go to that class. In several rounds, classes drop out
    by successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), by thirds.

    Args:
        steps: moves in all; each round, and in it each class, gets an equal share (100 moves a
            class in AutoAttack).
        targets: classes tried at the most; 9 in AutoAttack.
        order: `logits`, the largest logits of the clean image first; or `malt`, the least ratio of
            logit gap to gradient norm first (arXiv:2407.02240, section 4).
        candidates: how many of the largest logits `malt` chooses from; each costs a backward pass.
        rounds: after each but the last the third of the classes that came nearest begins anew,
            with three times the moves; 1 in AutoAttack.
    """

    needs = Access.GRADIENTS

    steps: int = 900
    targets: Annotated[int, Field(ge=1)] = 9
    order: Order = Order.LOGITS
    candidates: Annotated[int, Field(ge=1)] = 20
    rounds: Annotated[int, Field(ge=1)] = 1

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0 and threat.eps < float("inf")

    @property
    def longest_run(self) -> int:
        """What the classes of the last round get each."""
        return self._plan(self.targets)[-1][1]

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Chase:
        """At a random point of the threat, on the way to the first class."""
        targets = y[:, None] if oracle.targeted else self._targets(oracle, x, y)
        runs = sum(count for count, _ in self._plan(targets.shape[1]))
        later = targets[:, :1].expand(-1, runs - targets.shape[1])  # until their round begins
        fresh = begin(oracle.threat, x, rng)
        came = torch.full((len(x), runs), -torch.inf, device=x.device)
        targets, index = torch.cat([targets, later], 1), torch.zeros_like(y)
        return Chase(**vars(fresh), targets=targets, index=index, came=came)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Chase) -> Chase:
        """One move; when the share of a class is used up, a new start towards the next."""
        plan = self._plan(1 if oracle.targeted else min(self.targets, oracle.classes - 1))
        shares = tuple(share for _, share in plan)
        ends = torch.tensor([count for count, _ in plan], device=x.device).cumsum(0)
        kind = torch.searchsorted(ends, state.index, right=True)
        target = state.targets.gather(1, state.index[:, None]).squeeze(1)

        def toward(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
            return ratio_towards(logits, target, None if targeted else y)

        value, gradient = oracle.value_and_gradient(state.adv, y, toward)
        moved = climb(oracle.threat, shares, x, state, value, gradient, kind)
        made = state.turn + 1 + _before(oracle.threat, shares, kind, state.phase)
        last = state.index + 1 >= state.targets.shape[1]
        over = (made >= torch.tensor(shares, device=x.device)[kind]) & ~last
        if not bool(over.any()):
            return moved
        came = state.came.scatter(1, state.index[:, None], moved.top[:, None])
        targets = _promoted(state.targets, came, over, state.index + 1, [n for n, _ in plan])
        fresh = Chase(
            **vars(begin(oracle.threat, x, rng)),
            targets=targets,
            index=state.index + 1,
            came=came,
        )
        return _choose(over, fresh, moved)

    def _plan(self, targets: int) -> list[tuple[int, int]]:
        """How many classes each round has, and how many moves each of them gets."""
        counts = [max(1, targets // 3**i) for i in range(self.rounds)]
        return [(count, max(1, self.steps // self.rounds // count)) for count in counts]

    def _targets(self, oracle: Oracle[Lp], x: Tensor, y: Tensor) -> Tensor:
        """(N, T) classes in the order in which they are tried."""
        count = min(self.targets, oracle.classes - 1)
        if self.order is Order.LOGITS:
            return _others(oracle.logits(x), y).topk(count, dim=1).indices
        among = min(max(count, self.candidates), oracle.classes - 1)
        ranked: list[Tensor] = []

        def gaps(logits: Tensor) -> Tensor:
            top = _others(logits, y).topk(among, dim=1).indices
            ranked.append(top)
            own = torch.zeros_like(logits).scatter(1, y[:, None], 1.0)
            others = torch.zeros(*top.shape, logits.shape[1], device=logits.device)
            return own[:, None] - others.scatter(2, top[:, :, None], 1.0)

        logits, gradients = oracle.gradients(x, gaps)
        top = ranked[0]
        gap = logits.gather(1, y[:, None]) - logits.gather(1, top)
        slope = flat_norm(gradients.flatten(0, 1), oracle.threat.norm.dual).reshape(gap.shape)
        near = gap / slope.clamp(min=torch.finfo(gap.dtype).tiny)
        return top.gather(1, near.argsort(1)[:, :count])


def ratio_towards(logits: Tensor, target: Tensor, y: Tensor | None) -> Tensor:
    """(N,) targeted DLR: rises as the logit of `target` (N,) passes that of `y`.

    `y` is the class to leave; None for the largest other one.
    """
    aim = logits.gather(1, target[:, None]).squeeze(1)
    if y is None:
        own = logits.scatter(1, target[:, None], -torch.inf).amax(1)
    else:
        own = logits.gather(1, y[:, None]).squeeze(1)
    if logits.shape[1] < 4:
        return aim - own
    top = logits.topk(4, dim=1).values
    return (aim - own) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp(min=1e-12)


def _others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y[:, None], -torch.inf)


def _promoted(
    targets: Tensor, came: Tensor, over: Tensor, index: Tensor, counts: list[int]
) -> Tensor:
    """(N, T) the targets, with those of a round where a slot that is `over` is about to begin it.

    `counts` tells how many classes each round has, `index` (N,) which run begins.
    """
    first = 0
    for count, best in itertools.pairwise(counts):
        begins = over & (index == first + count)
        if bool(begins.any()):
            chosen = came[:, first : first + count].topk(best, dim=1).indices
            chosen = targets[:, first : first + count].gather(1, chosen)
            after = slice(first + count, first + count + best)
            targets = targets.clone()
            targets[:, after] = torch.where(begins[:, None], chosen, targets[:, after])
        first += count
    return targets


def _before(threat: Lp, shares: tuple[int, ...], kind: Tensor, phase: Tensor) -> Tensor:
    """Moves made in the phases before each slot's."""
    made = [(0, *lengths(threat.norm, share)) for share in shares]
    return torch.tensor(made, device=phase.device).cumsum(1)[kind, phase]


def _choose(mask: Tensor, yes: Chase, no: Chase) -> Chase:
    mixed = {}
    for name, value in vars(no).items():
        rows = mask.reshape(-1, *[1] * (value.ndim - 1))
        mixed[name] = torch.where(rows, getattr(yes, name), value)
    return replace(no, **mixed)
