"""FGSM with diverse inputs (Xie et al. 2019, arXiv:1803.06978, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.mi_fgsm import Rolling, follow, unit_l1
from robustbench_lite.attack import Attack
from robustbench_lite.loss import Loss, Objective
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat


@dataclass(frozen=True)
class DIFGSM(Attack):
    """MI-FGSM whose gradient is taken, with some probability, at a resized and padded image.

    The paper enlarges images to fit a larger model input; here the image shrinks to a random size
    and is padded with zeros to its own shape, which leaves it the same part of the model's input.
    Each sample draws its own size and place. A changed image that fools the classifier counts only
    if the threat contains it.

    Args:
        steps: moves; 10 as in MI-FGSM.
        step_size: length of one move, in units of eps; None for 1 / steps.
        decay: the factor of the old gradients at each step; 1 as in the paper's M-DI2-FGSM.
        probability: of changing the input of a step; 0.5 in the paper.
        smallest: the smallest size, by the image's; 299 / 330 in the paper.
        loss: what to climb; the paper's is the cross-entropy.
    """

    needs = Access.GRADIENTS

    steps: int = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.9
    loss: Loss = Loss.CROSS_ENTROPY

    def supports(self, threat: Threat) -> bool:
        """Linf."""
        return isinstance(threat, Lp) and threat.norm is Norm.LINF and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Rolling:
        """At the image itself."""
        return Rolling(x, torch.zeros_like(x))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Rolling) -> Rolling:
        """Add the gradient at the changed image to the sum and follow the sum."""
        change = Resizing.draw(x, rng, self.probability, self.smallest)
        gradient = diverse_gradient(oracle, state.adv, y, self.loss, change)
        momentum = self.decay * state.momentum + unit_l1(gradient)
        share = self.step_size or 1 / self.steps
        return follow(oracle.threat, x, state.adv, momentum, share)


@dataclass(frozen=True)
class Resizing:
    """Bilinear shrinking and zero padding of each image: the linear map rows @ x @ columns^T.

    Attributes:
        rows: (N, 1, H, H).
        columns: (N, 1, W, W).
    """

    rows: Tensor
    columns: Tensor

    @staticmethod
    def draw(x: Tensor, rng: Rng, probability: float, smallest: float) -> Resizing:
        """A random size and place for each image (N, C, H, W), or none with 1 - `probability`."""
        changed = rng.uniform() < probability
        factor = torch.where(changed, smallest + (1 - smallest) * rng.uniform(), 1.0)
        places = rng.uniform(2)
        sides = [_shrink(x.shape[2 + i], factor, places[:, i]).to(x.dtype) for i in range(2)]
        return Resizing(*sides)

    def apply(self, x: Tensor) -> Tensor:
        """(N, C, H, W) the changed images."""
        return self.rows @ x @ self.columns.mT

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient at the images, from (N, C, H, W) the gradient at the changed ones."""
        return self.rows.mT @ gradient @ self.columns


def diverse_gradient(
    oracle: Oracle[Lp], adv: Tensor, y: Tensor, loss: Objective, change: Resizing
) -> Tensor:
    """The gradient of the loss of the changed image, with respect to `adv`. One pass each way."""
    return change.pull_back(oracle.gradient(change.apply(adv).clamp(0, 1), y, loss))


def _shrink(side: int, factor: Tensor, place: Tensor) -> Tensor:
    """(N, 1, side, side) the weights with which pixels of a side make up its shrunken copy.

    Args:
        side: its length.
        factor: (N,) the copy's length by the side's; the copy has whole pixels, at least one.
        place: (N,) in (0, 1) where the copy lies among the padding.
    """
    length = (factor * side).ceil().clamp(1, side)[:, None]
    first = (place[:, None] * (side - length + 1)).floor()
    index = torch.arange(side, device=factor.device)
    at = index - first
    inside = (at >= 0) & (at < length)
    source = ((at + 0.5) * side / length - 0.5).clamp(0, side - 1)
    near = (1 - (source[:, :, None] - index).abs()).clamp(min=0)
    return (near * inside[:, :, None])[:, None]
