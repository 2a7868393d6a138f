"""SuperDeepFool (Abdollahpour et al. 2024, arXiv:2303.12481, algorithm 2): SDF(inf, 1)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.deepfool import nearest_border, step_onto
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, free, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_CAREFUL = 10  # as in DeepFool: so many moves in a row are as short as off the box
_GAIN = 0.99  # an example that is smaller than so much of the last one is a gain


@dataclass(frozen=True)
class Turn:
    """The point, how far the next overshoot goes, the first gap, the moves since a success.

    Attributes:
        size: (N,) of the best example, when it last became clearly smaller.
        idle: (N,) moves since then.
        done: the search has come to rest.
    """

    adv: Tensor
    beyond: Tensor
    gap: Tensor
    tries: Tensor
    size: Tensor
    idle: Tensor
    done: Tensor


@dataclass(frozen=True)
class SuperDeepFool(Attack):
    """DeepFool up to the border, then the projection of the image's way onto the border's normal.

    The two alternate until the example comes to rest. Two things differ from the paper, which ends
    with a search along the last line: a projected point goes back to just beyond the linearised
    border, nearer each time; and from the second projection on the way turns only a part of the
    angle, as borders of several classes or linear pieces would throw it to and fro.

    Args:
        steps: moves at the most.
        patience: moves without an example that is 1 % smaller, after which a search ends.
        inertia: weight of the way so far against the normal's in its new direction; 0 in the paper.
        overshoot: how much longer a move is than the linear distance, at first.
        classes: how many of the largest logits are looked at; 10 as in DeepFool.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    patience: Annotated[int, Field(ge=1)] = 8
    inertia: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    classes: Annotated[int, Field(ge=2)] = 10

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Turn:
        """At the image itself."""
        zeros = x.new_zeros(len(x))
        nothing = torch.zeros_like(y)
        beyond = zeros + self.overshoot
        return Turn(x, beyond, zeros, nothing, zeros + torch.inf, nothing, nothing.bool())

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Turn) -> Turn:
        """Onto the border if not yet fooled; else back onto the line through the image."""
        value, normal = self._border(oracle, state.adv, y)
        open_ = free(normal, state.adv)
        gap = torch.where(state.gap == 0, value.abs(), state.gap)
        careful = per_row(state.tries < _CAREFUL, x)
        aim = value.abs() + state.beyond * gap
        move = step_onto(Norm.L2, aim, torch.where(careful, normal, open_)) * (open_ != 0)
        ahead = state.adv + move
        straight = self._straight(x, state, value - state.beyond * gap, normal)
        fooled = (value > 0) & oracle.found
        adv = torch.where(per_row(fooled, x), straight, ahead).clamp(0, 1)
        beyond = torch.where(fooled, (state.beyond * 0.8).clamp(min=1e-4), state.beyond)
        size = flat_norm(oracle.best - x, Norm.L2)
        gained = ~oracle.found | (size < _GAIN * state.size)
        idle = torch.where(gained, 0, state.idle + 1)
        return Turn(
            adv=adv,
            beyond=beyond,
            gap=gap,
            tries=torch.where(fooled, 0, state.tries + 1),
            size=torch.where(gained & oracle.found, size, state.size),
            idle=idle,
            done=idle >= self.patience,
        )

    def _straight(self, x: Tensor, state: Turn, spare: Tensor, normal: Tensor) -> Tensor:
        """The image's way turned towards the normal, to where the lead has nothing to spare."""
        d = state.adv - x
        slope = flat_norm(normal, Norm.L2).clamp(min=1e-30)
        unit = normal / per_row(slope, x)
        kept = torch.where(state.size.isfinite(), self.inertia, 0.0)
        way = unit + per_row(kept / flat_norm(d, Norm.L2).clamp(min=1e-12), x) * d
        length = (unit * d).flatten(1).sum(1) - spare.clamp(min=0) / slope
        return x + per_row(length / (unit * way).flatten(1).sum(1).clamp(min=1e-12), x) * way

    def _border(self, oracle: Oracle[Lp], adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest border's lead and gradient; once found, of the class that leads."""
        value, normal = adv.new_zeros(len(adv)), torch.zeros_like(adv)
        found = oracle.found
        for which in (found, ~found):
            rows = which.nonzero().flatten()
            if not len(rows):
                continue
            with oracle.part(rows) as some:
                if which is found:
                    answer = some.value_and_gradient(adv[rows], y[rows], Loss.MARGIN)
                else:
                    answer = nearest_border(some, adv[rows], y[rows], self.classes)
            value[rows], normal[rows] = answer
        return value, normal
