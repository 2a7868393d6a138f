"""Auto-PGD towards one class after the other (Croce and Hein 2020, arXiv:2003.01690, section 5)."""

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
    """An ascent towards `targets[index]`."""

    targets: Tensor
    index: Tensor


@dataclass(frozen=True)
class APGDT(Attack):
    """APGD on the targeted difference-of-logits ratio, for several target classes in turn.

    With fewer than four classes the ratio is undefined and the plain difference of the two logits
    is climbed. With a targeted goal all steps go to that class.

    Args:
        steps: moves in all; each class gets an equal share (100 in AutoAttack).
        targets: classes tried at the most; 9 in AutoAttack.
        order: `logits`, the largest logits of the clean image first; or `malt`, the least ratio of
            logit gap to gradient norm first (arXiv:2407.02240, section 4).
        candidates: how many of the largest logits `malt` chooses from; each costs a backward pass.
    """

    needs = Access.GRADIENTS

    steps: int = 900
    targets: Annotated[int, Field(ge=1)] = 9
    order: Order = Order.LOGITS
    candidates: Annotated[int, Field(ge=1)] = 20

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0 and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Chase:
        """At a random point of the threat, on the way to the first class."""
        targets = y[:, None] if oracle.targeted else self._targets(oracle, x, y)
        fresh = begin(oracle.threat, x, rng)
        return Chase(**vars(fresh), targets=targets, index=torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Chase) -> Chase:
        """One move; when the share of a class is used up, a new start towards the next."""
        share = max(1, self.steps // state.targets.shape[1])
        target = state.targets.gather(1, state.index[:, None]).squeeze(1)

        def toward(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
            return ratio_towards(logits, target, None if targeted else y)

        value, gradient = oracle.value_and_gradient(state.adv, y, toward)
        moved = climb(oracle.threat, share, x, state, value, gradient)
        last = state.index + 1 >= state.targets.shape[1]
        made = state.turn + 1 + _before(oracle.threat, share, state.phase)
        over = (made >= share) & ~last
        if not bool(over.any()):
            return moved
        fresh = Chase(
            **vars(begin(oracle.threat, x, rng)), targets=state.targets, index=state.index + 1
        )
        return _choose(over, fresh, moved)

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


def _before(threat: Lp, share: int, phase: Tensor) -> Tensor:
    """Moves made in the phases before each slot's."""
    sums = torch.tensor([0, *lengths(threat.norm, share)], device=phase.device).cumsum(0)
    return sums[phase]


def _choose(mask: Tensor, yes: Chase, no: Chase) -> Chase:
    mixed = {}
    for name, value in vars(no).items():
        rows = mask.reshape(-1, *[1] * (value.ndim - 1))
        mixed[name] = torch.where(rows, getattr(yes, name), value)
    return replace(no, **mixed)
