"""Adversarial weight perturbation (Wu et al. 2020, arXiv:2004.05884)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from rbl_defenses.adversarial import Adversarial
from robustbench_lite.defense import Training
from robustbench_lite.errors import InputError
from robustbench_lite.registry import load_defense
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp

_TINY = 1e-12


@dataclass(frozen=True)
class AWP(Training):
    """Another adversarial training, learned at weights that were moved to make it hard.

    Every matrix and filter moves along the gradient of the loss by a share of its own norm
    (equations 7 to 9, one step), the loss is taken there, and its gradient is applied here.

    Args:
        on: the adversarial training that it stands on, as pgd-at or trades?beta=6.
        share: of a layer's norm by which it moves, gamma in the paper; 0.005 there.
    """

    on: str = "pgd-at"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.005

    def __post_init__(self) -> None:
        """Refuse what cannot be stood on."""
        super().__post_init__()
        self._below()

    def _below(self) -> Adversarial:
        below = load_defense(self.on)
        if not isinstance(below, Adversarial):
            raise InputError(f"{self.on!r} has no adversarial search; give pgd-at, trades or mart")
        return below

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The loss of `on` at the moved weights, as a function of the weights as they are."""
        below = self._below()
        adv = below.search(model, x, y, threat, rng)
        layers = {name: p for name, p in model.named_parameters() if p.ndim > 1}
        # The first look writes the running statistics of batch norm into copies.
        aside = _At(model, {name: b.clone() for name, b in model.named_buffers()})
        uphill = torch.autograd.grad(below.objective(aside, x, adv, y), list(layers.values()))
        moved = {}
        for (name, p), slope in zip(layers.items(), uphill, strict=True):
            way = slope / (slope.norm() + _TINY)
            moved[name] = p + (self.share * p.norm() * way).detach()
        return below.objective(_At(model, moved), x, adv, y)


class _At(nn.Module):
    """A model with some of its weights or statistics replaced."""

    def __init__(self, model: nn.Module, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.values = model, values

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, self.values, (x,))
        return logits
