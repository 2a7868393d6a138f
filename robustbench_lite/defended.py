"""A classifier that changes the image before it looks, and what an attacker may know of that."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.rng import Rng


class Change(Protocol):
    """What a defense does to images."""

    @property
    def randomized(self) -> bool:
        """Does it draw random numbers?"""

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) what the classifier sees instead of `x`."""

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) what the adaptive attacker differentiates instead."""


class Defended(Classifier):
    """A classifier behind changes of the image, which are made in the order given.

    Values are those of the changes; gradients are those of their stand-ins (BPDA: Athalye et al.
    2018, arXiv:1802.00420, section 4.1), or with `naive` those of the changes themselves, zero
    where there is none.
    """

    def __init__(self, inner: Classifier, change: Change) -> None:
        before = inner.changes if isinstance(inner, Defended) else ()
        flat = type(inner) in (Classifier, Defended)
        super().__init__(
            inner.model if flat else inner,
            bounds=inner.bounds,
            classes=inner.classes,
            access=inner.access,
            name=f"{inner.name}+{type(change).__name__}",
        )
        if flat:
            self.scale, self.shift, self.plain = inner.scale, inner.shift, inner.plain
        self.changes: tuple[Change, ...] = (*before, change)
        self.randomized = inner.randomized or change.randomized
        self.naive = inner.naive

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1]; `rng` as for every classifier."""
        if rng is None:
            rng = Rng(torch.randint(2**62, (len(x),), device=x.device))
        for number, change in enumerate(self.changes):
            x = self._changed(x, change, rng, number)
        return super().forward(x, rng.branch(len(self.changes)))

    def _changed(self, x: Tensor, change: Change, rng: Rng, number: int) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return change.images(x, rng.branch(number))
        if self.naive:
            seen = change.images(x, rng.branch(number))
            return seen if seen.requires_grad else seen + 0 * x
        stand_in = change.stand_in(x, rng.branch(number))
        with torch.no_grad():
            seen = change.images(x, rng.branch(number))
        return stand_in + (seen - stand_in).detach()
