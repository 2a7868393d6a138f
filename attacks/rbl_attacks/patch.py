"""A patch whose content and place are optimised (Rao et al. 2020, arXiv:2005.02313)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

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
    four places `stride` pixels away. The paper starts at a random place with random content; here
    it is the best of `places` such starts. The patch is as square as the image allows.

    Args:
        steps: moves of one gradient and one further query; 100 in the paper.
        step_size: how far each component moves; 0.05 in the paper.
        stride: pixels between two places; 2 in the paper.
        places: random starts that are asked about.
        loss: what to climb; the cross-entropy in the paper.
    """

    needs = Access.GRADIENTS

    steps: int = 100
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    stride: Annotated[int, Field(ge=1)] = 2
    places: Annotated[int, Field(ge=1)] = 30
    loss: Loss = Loss.MARGIN

    def supports(self, threat: Threat) -> bool:
        """Patch."""
        return isinstance(threat, Patch)

    def start(self, oracle: Oracle[Patch], x: Tensor, y: Tensor, rng: Rng) -> Sticker:
        """The best of some random places with random content."""
        height, width = oracle.threat.sides(x)
        room = torch.tensor([x.shape[2] - height, x.shape[3] - width], device=x.device)
        count = self.places
        corner = (rng.uniform(count, 2) * (room + 1)).long()
        content = rng.uniform(count, x.shape[1], height, width).round().to(x.dtype)
        slots = torch.arange(len(x), device=x.device)
        many = slots.repeat_interleave(count)
        images = pasted(x[many], content.flatten(0, 1), corner.flatten(0, 1))
        logits = oracle.logits(images.reshape(len(x), count, *x.shape[1:])).flatten(0, 1)
        value = self.loss(logits, y[many], targeted=oracle.targeted)
        best = value.reshape(-1, count).argmax(1)
        content, corner = content[slots, best], corner[slots, best]
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
