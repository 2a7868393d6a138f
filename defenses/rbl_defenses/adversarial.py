"""Training on images that an attack has changed: what all such defenses share."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.classifier import borrowed
from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class Adversarial(Training):
    """Look for the worst image first, then learn from it (and from the image as it is)."""

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """(N, C, H, W) the images to learn from, within the threat; the model is not changed."""

    @abstractmethod
    def objective(self, model: nn.Module, x: Tensor, adv: Tensor, y: Tensor) -> Tensor:
        """The scalar to minimise, given what was found."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The objective at the end of the search."""
        return self.objective(model, x, self.search(model, x, y, threat, rng), y)


def ascend(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    threat: Lp,
    climb: Callable[[Tensor], Tensor],
    moves: list[float],
) -> Tensor:
    """Projected steepest ascent of `climb` (logits to a scalar) from `start` (N, C, H, W).

    The model is in eval mode meanwhile and as before afterwards.

    Args:
        model: maps images to logits.
        x: (N, C, H, W) the centre of the threat.
        start: (N, C, H, W) where to begin, within the threat.
        threat: what is allowed.
        climb: what to make large.
        moves: the length of each move, in units of eps.
    """
    adv = start
    with borrowed(model):
        for length in moves:
            leaf = adv.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(climb(model(leaf)), leaf)
            step = length * threat.eps * threat.steepest(gradient, leaf.detach())
            adv = threat.project(x, leaf.detach() + step)
    return adv.detach()


def pgd(model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng, moves: list[float]) -> Tensor:
    """`ascend` on the cross-entropy with the labels `y` (N,) from a random point."""

    def climb(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, reduction="sum")

    return ascend(model, x, threat.random_point(x, rng), threat, climb, moves)
