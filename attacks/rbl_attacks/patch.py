"""A patch whose content and place are optimised (Rao et al. 2020, arXiv:2005.02313)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from rbl_attacks.pasting import pasted, window
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.structured import Patch
from robustbench_lite.threat import Access, Threat


@dataclass(frozen=True)
class Sticker:
    """The image with the patch, the patch (N, C, h, w), its corner (N, 2) and the moves made."""

    adv: Tensor
    content: Tensor
    corner: Tensor
    turn: Tensor


@dataclass(frozen=True)
class PatchAttack(Attack):
    """Signed gradient steps on the patch's content; a neighbouring place is taken if it is better.

    Algorithm 1 of the paper with its random direction: each move asks about the loss at one of the
    four places `stride` pixels away. The paper starts at a random place; here it is the place that
    holds most of the gradient's absolute values, each weighed at random by up to a half, so that
    restarts differ. The patch is as square as the image allows.

    Args:
        steps: moves of one gradient and one further query; 100 in the paper.
        step_size: how far each component moves; 0.05 in the paper.
        stride: pixels between two places; 2 in the paper.
        loss: what to climb; the cross-entropy in the paper.
    """

    needs = Access.GRADIENTS

    steps: int = 100
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    stride: Annotated[int, Field(ge=1)] = 2
    loss: Loss = Loss.MARGIN

    def supports(self, threat: Threat) -> bool:
        """Patch."""
        return isinstance(threat, Patch)

    def start(self, oracle: Oracle[Patch], x: Tensor, y: Tensor, rng: Rng) -> Sticker:
        """Random content at the place with the steepest loss."""
        height, width = oracle.threat.sides(x)
        slope = oracle.gradient(x, y, self.loss).abs().sum(1, keepdim=True)
        mass = functional.avg_pool2d(slope, (height, width), stride=1)
        draws = 1 + rng.uniform(*mass.shape[1:]).to(x.dtype) / 2
        place = (mass * draws).flatten(1).argmax(1)
        corner = torch.stack([place // mass.shape[3], place % mass.shape[3]], 1)
        content = rng.uniform(x.shape[1], height, width).to(x.dtype)
        return Sticker(pasted(x, content, corner), content, corner, torch.zeros_like(y))

    def step(
        self, oracle: Oracle[Patch], x: Tensor, y: Tensor, rng: Rng, state: Sticker
    ) -> Sticker:
        """Improve the content, then look at a neighbouring place."""
        height, width = state.content.shape[2:]
        turn = state.turn + 1
        value, gradient = oracle.value_and_gradient(state.adv, y, self.loss)
        uphill = window(gradient, state.corner, height, width).sign()
        falling = per_row(1 - 0.9 * turn.to(x.dtype) / self.steps, x)
        content = (state.content + self.step_size * falling * uphill).clamp(0, 1)
        ways = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], device=x.device)
        moved = state.corner + self.stride * ways[rng.integers(4)]
        room = torch.tensor([x.shape[2] - height, x.shape[3] - width], device=x.device)
        moved = moved.clamp(min=0).minimum(room)
        there = self.loss(
            oracle.logits(pasted(x, state.content, moved)), y, targeted=oracle.targeted
        )
        better = there > value
        corner = torch.where(better[:, None], moved, state.corner)
        content = torch.where(per_row(better, x), state.content, content)
        return Sticker(pasted(x, content, corner), content, corner, turn)
