"""Adversarial training at the price of plain training (Shafahi et al. 2019, arXiv:1904.12843)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class FreeAT(Training):
    """Each backward pass moves the weights down and the image up (Algorithm 1).

    In the paper a perturbation goes on from one batch to the next; here each batch starts at a
    random point, so that what is learned depends on the samples and the seed only. An epoch costs
    `replays` epochs of plain training: give as many fewer.

    Args:
        replays: passes over a batch, each with an update of the weights; 8 in the paper.
        smoothing: label smoothing.
    """

    replays: Annotated[int, Field(ge=1)] = 8
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def losses(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng
    ) -> Iterator[Tensor]:
        """One loss a replay; the gradient at the image comes with that of the weights."""
        adv = threat.random_point(x, rng)
        for _ in range(self.replays):
            leaf = adv.detach().requires_grad_(True)
            yield functional.cross_entropy(model(leaf), y, label_smoothing=self.smoothing)
            gradient = torch.zeros_like(x) if leaf.grad is None else leaf.grad
            step = threat.eps * threat.steepest(gradient, leaf.detach())
            adv = threat.project(x, leaf.detach() + step)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The first replay's loss."""
        return next(self.losses(model, x, y, threat, rng))
