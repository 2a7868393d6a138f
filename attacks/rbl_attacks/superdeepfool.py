"""SuperDeepFool (Abdollahpour et al. 2024, arXiv:2303.12481, algorithm 2): SDF(inf, 1)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.deepfool import nearest_border, step_onto
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, free, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_CAREFUL = 10  # as in DeepFool: so many moves in a row are as short as off the box


@dataclass(frozen=True)
class Turn:
    """The point, how far the next overshoot goes, the first gap, the moves since a success."""

    adv: Tensor
    beyond: Tensor
    gap: Tensor
    tries: Tensor


@dataclass(frozen=True)
class SuperDeepFool(Attack):
    """DeepFool up to the border, then the projection of the image's way onto the border's normal.

    The two alternate until the steps are used up. A projected point goes back to just beyond the
    linearised border, nearer each time; the paper ends with a search along the last line instead.

    Args:
        steps: moves in all.
        overshoot: how much longer a move is than the linear distance, at first.
        classes: how many of the largest logits are looked at; 10 as in DeepFool.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    classes: Annotated[int, Field(ge=2)] = 10

    def supports(self, threat: Threat) -> bool:
        """L2."""
        return isinstance(threat, Lp) and threat.norm is Norm.L2

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Turn:
        """At the image itself."""
        zeros = x.new_zeros(len(x))
        return Turn(x, zeros + self.overshoot, zeros, torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Turn) -> Turn:
        """Onto the border if not yet fooled; else back onto the line through the image."""
        value, normal = nearest_border(oracle, state.adv, y, self.classes)
        open_ = free(normal, state.adv)
        gap = torch.where(state.gap == 0, value.abs(), state.gap)
        careful = per_row(state.tries < _CAREFUL, x)
        aim = value.abs() + state.beyond * gap
        move = step_onto(Norm.L2, aim, torch.where(careful, normal, open_)) * (open_ != 0)
        ahead = state.adv + move
        scale = open_.flatten(1).abs().amax(1).clamp(min=torch.finfo(x.dtype).tiny)
        unit = open_ / per_row(scale, x)
        along = (unit * (state.adv - x)).flatten(1).sum(1)
        length = along / unit.square().flatten(1).sum(1).clamp(min=1e-12)
        back = step_onto(Norm.L2, (value - state.beyond * gap).clamp(min=0), open_)
        straight = x + per_row(length, x) * unit - back
        fooled = (value > 0) & oracle.found
        adv = torch.where(per_row(fooled, x), straight, ahead).clamp(0, 1)
        beyond = torch.where(fooled, (state.beyond * 0.8).clamp(min=1e-4), state.beyond)
        return Turn(adv, beyond, gap, torch.where(fooled, 0, state.tries + 1))
