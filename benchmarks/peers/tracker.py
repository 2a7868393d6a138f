"""The best adversarial example that a peer's attack sees in any query, within a budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_lite.geometry import per_row
from robustbench_lite.threat import Lp


class _Plain(torch.autograd.Function):
    """The identity, whose gradient lies in memory as peers expect it: they ask for views of it."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class OverBudgetError(Exception):
    """Every sample has used up its budget."""


class Tracker(nn.Module):
    """A model that notes what fools it, as AttackBench does (arXiv:2404.19460, section 3).

    A call with as many rows as there are images is taken to be about them in their order; what a
    call with another number of rows finds is not noted, but its rows are charged, spread evenly.

    `best` are the sizes, `adv` the examples.

    Args:
        model: images to logits.
        threat: measures the size; its eps is not looked at.
        x: (N, C, H, W) the images.
        y: (N,) their labels.
        budget: forward plus backward passes a sample; what is found later does not count.
    """

    def __init__(self, model: nn.Module, threat: Lp, x: Tensor, y: Tensor, budget: int) -> None:
        super().__init__()
        self.model, self.threat, self.budget = model, threat, budget
        self.images, self.labels = x, y
        self.spent = 0.0
        self.best = torch.full((len(x),), torch.inf, dtype=torch.float64)
        self.adv = x.clone()

    def forward(self, x: Tensor) -> Tensor:
        """(M, K) logits."""
        if self.spent >= self.budget:
            raise OverBudgetError
        self.spent += len(x) / len(self.images)
        logits: Tensor = self.model(_Plain.apply(x))
        if logits.requires_grad:
            logits.register_hook(self._charge_backward)
        if len(x) == len(self.images):
            self.note(x, logits)
        return logits

    def note(self, x: Tensor, logits: Tensor) -> None:
        """Keep the sizes of what fools the model and lies in the box."""
        with torch.no_grad():
            adv = x.detach()
            fooled = (logits.argmax(1) != self.labels) & torch.isfinite(logits).all(1)
            boxed = ((adv > -1e-6) & (adv < 1 + 1e-6)).flatten(1).all(1)
            size = self.threat.size(self.images, adv.clamp(0, 1))
            better = fooled & boxed & (size < self.best)
            self.best = torch.where(better, size, self.best)
            self.adv = torch.where(per_row(better, adv), adv.clamp(0, 1), self.adv)

    def _charge_backward(self, gradient: Tensor) -> None:
        self.spent += len(gradient) / len(self.images)
