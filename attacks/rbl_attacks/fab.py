"""The fast adaptive boundary attack (Croce and Hein 2020, arXiv:1907.02044, algorithm 1)."""

from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.hyperplane import onto_hyperplane
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_CLASSES = 10


@dataclass(frozen=True)
class Border:
    """Where each slot stands near the border of its class, and its number of moves."""

    adv: Tensor
    turn: Tensor


@dataclass(frozen=True)
class Tour(Border):
    """The same on the way to `targets[index]`."""

    targets: Tensor
    index: Tensor


S = TypeVar("S", bound=Border)


@dataclass(frozen=True)
class FAB(Attack):
    """Walks along the border between two classes towards the point of it that is nearest.

    Each move goes onto the linearised border, a little beyond, and is drawn towards the projection
    of the image itself. After an example is found, the search goes on from between it and the
    image. Of many classes the nine with the largest logits are looked at.

    Args:
        steps: moves; 100 in the paper.
        alpha_max: how much the image draws at the most; 0.1 in the paper.
        eta: how far beyond the border a move goes; 1.05 in the paper.
        beta: how far from the image the search goes on after a success; 0.9 in the paper.
        random_start: start at a random point near the image, for restarts.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    alpha_max: Annotated[float, Field(gt=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9
    random_start: bool = False

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Border:
        """At the image itself, or at a random point within half of eps."""
        return Border(_first(self, oracle, x, rng), torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Border) -> Border:
        """Linearise the borders to the nearest classes and move onto the nearest of them."""
        ranked: list[Tensor] = []
        among = 1 if oracle.targeted else min(_CLASSES, oracle.classes) - 1

        def gaps(logits: Tensor) -> Tensor:
            top = logits.scatter(1, y[:, None], -torch.inf).topk(among, dim=1).indices
            ranked.append(top)
            own = torch.zeros_like(logits).scatter(1, y[:, None], 1.0)
            if oracle.targeted:
                other = torch.zeros_like(logits).scatter(1, top, 1.0)
                return (own - other)[:, None]
            others = torch.zeros(*top.shape, logits.shape[1], device=logits.device)
            return others.scatter(2, top[:, :, None], 1.0) - own[:, None]

        logits, normals = oracle.gradients(state.adv, gaps)
        top = logits.gather(1, ranked[0])
        value = top - logits.gather(1, y[:, None])
        value = -value if oracle.targeted else value
        slope = flat_norm(normals.flatten(0, 1), oracle.threat.norm.dual).reshape(value.shape)
        near = value.abs() / slope.clamp(min=torch.finfo(value.dtype).tiny)
        best = near.argmin(1)
        rows = torch.arange(len(x), device=x.device)
        return approach(self, oracle, x, state, value[rows, best], normals[rows, best])


@dataclass(frozen=True)
class FABT(FAB):
    """The targeted form in AutoAttack: one border after the other, at a fixed eps.

    A sample leaves as soon as it is fooled within eps. With a targeted goal all steps go to that
    class.

    Args:
        steps: moves in all; each class gets an equal share (100 in AutoAttack).
        alpha_max: how much the image draws at the most.
        eta: how far beyond the border a move goes.
        beta: how far from the image the search goes on after a success.
        random_start: start at a random point near the image, for restarts.
        targets: classes tried at the most, the largest clean logits first; 9 in AutoAttack.
    """

    minimal = False

    steps: int = 900
    targets: Annotated[int, Field(ge=1)] = 9

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf at a finite eps."""
        return super().supports(threat) and isinstance(threat, Lp) and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Tour:
        """At the image, on the way to the class with the largest logit but its own."""
        count = min(self.targets, oracle.classes - 1)
        targets = y[:, None]
        if not oracle.targeted:
            logits = oracle.logits(x).scatter(1, y[:, None], -torch.inf)
            targets = logits.topk(count, dim=1).indices
        nothing = torch.zeros_like(y)
        return Tour(_first(self, oracle, x, rng), nothing, targets, nothing)

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Border) -> Tour:
        """One move towards the border of the class in turn."""
        assert isinstance(state, Tour)
        share = max(1, self.steps // state.targets.shape[1])
        target = state.targets.gather(1, state.index[:, None])

        def gap(logits: Tensor) -> Tensor:
            other = logits.scatter(1, target, -torch.inf).argmax(1, keepdim=True)
            own = other if oracle.targeted else y[:, None]
            ones = torch.ones_like(target, dtype=logits.dtype)
            return torch.zeros_like(logits).scatter(1, target, ones).scatter(1, own, -ones)[:, None]

        logits, normals = oracle.gradients(state.adv, gap)
        own = logits.scatter(1, target, -torch.inf).amax(1) if oracle.targeted else None
        left = logits.gather(1, y[:, None]).squeeze(1) if own is None else own
        value = logits.gather(1, target).squeeze(1) - left
        moved = approach(self, oracle, x, state, value, normals[:, 0])
        over = (moved.turn >= share) & (state.index + 1 < state.targets.shape[1])
        if not bool(over.any()):
            return moved
        return replace(
            moved,
            adv=torch.where(per_row(over, x), x, moved.adv),
            turn=moved.turn.masked_fill(over, 0),
            index=torch.where(over, state.index + 1, state.index),
        )


def _first(attack: FAB, oracle: Oracle[Lp], x: Tensor, rng: Rng) -> Tensor:
    if not attack.random_start:
        return x
    threat = oracle.threat
    eps = threat.eps if threat.eps < float("inf") else 0.1 * float(x[0].numel()) ** 0.5
    return replace(threat, eps=eps / 2).random_point(x, rng)


def approach(
    attack: FAB, oracle: Oracle[Lp], x: Tensor, state: S, value: Tensor, normal: Tensor
) -> S:
    """The biased step onto the border where `value` (N,) with gradient `normal` is zero."""
    norm = oracle.threat.norm
    # A point that fools is drawn towards the image first (the paper's backward step).
    back = per_row(value > 0, x)
    adv = torch.where(back, x + attack.beta * (state.adv - x), state.adv)
    flat = normal.flatten(1)
    top = flat.abs().amax(1).clamp(min=torch.finfo(x.dtype).tiny)
    normal, value = normal / per_row(top, x), value / top
    along = (flat / top[:, None] * (state.adv - adv).flatten(1)).sum(1)
    here = value - along
    there = here - (normal.flatten(1) * (adv - x).flatten(1)).sum(1)
    both = onto_hyperplane(
        torch.cat([adv, x]), torch.cat([normal, normal]), -torch.cat([here, there]), norm
    )
    here_move, image_move = both[: len(x)], both[len(x) :]
    a, b = flat_norm(here_move, norm), flat_norm(image_move, norm)
    alpha = (a / (a + b).clamp(min=1e-12)).clamp(max=attack.alpha_max)
    weight = per_row(alpha, x)
    point = (1 - weight) * (adv + attack.eta * here_move) + weight * (x + attack.eta * image_move)
    moved = per_row(top > torch.finfo(x.dtype).tiny, x)
    adv = torch.where(moved, point.clamp(0, 1), adv)
    return replace(state, adv=adv, turn=state.turn + 1)
