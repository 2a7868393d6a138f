"""What an attack climbs: one value a sample, never averaged over the batch."""

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

_SPAN = 10.0
_ROUNDING = 1e-5
_LAST_PLACES = 3e-7


class Objective(Protocol):
    """What an attack may climb: a Loss, or a function of its own."""

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
        """(N,) values that rise towards success, of logits (N, K) and labels (N,)."""
        ...


class Loss(StrEnum):
    """An objective that rises as a sample comes nearer to success.

    Called with logits (N, K), labels y (N,) and `targeted`; returns (N,) float32. Untargeted, y is
    the class to leave; targeted, y is the class to reach.

    `ce` is the cross-entropy of the logits stretched to span 10 (the stretch is a constant for the
    gradient): the plain one has no gradient in float32 once a model is confident, so that a model
    would look robust because its logits are large.
    `margin` is the largest other logit minus the logit of y (Carlini and Wagner 2017, f6).
    `dlr` is the difference-of-logits ratio (Croce and Hein 2020, arXiv:2003.01690, section 5);
    with fewer classes than it needs (3, targeted 4) it is the margin.
    """

    CROSS_ENTROPY = "ce"
    MARGIN = "margin"
    DLR = "dlr"

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
        """(N,) the objective to be raised."""
        sign = -1.0 if targeted else 1.0
        match self:
            case Loss.CROSS_ENTROPY:
                return sign * _cross_entropy(logits, y)
            case Loss.MARGIN:
                return sign * margin(logits, y)
            case Loss.DLR:
                return sign * _dlr(logits, y, targeted)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) the largest other logit minus the logit of y: positive where y is not predicted."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own.squeeze(1)


def reached(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """(N,) bool: is y the predicted class (targeted) or another one, by more than rounding?

    A lead within rounding (1e-5 of the logits' span, or a few units in the last place of the
    largest) comes and goes with the shape of the batch, so it is no success; nor are logits that
    are not finite.
    """
    return standing(logits, y, targeted=targeted)[0]


def standing(logits: Tensor, y: Tensor, *, targeted: bool) -> tuple[Tensor, Tensor]:
    """(N,) bool `reached`, and (N,) by how much it is missed: the lead of the wrong side.

    The second is negative after success, and inf where a logit is not finite.
    """
    lead = -margin(logits, y) if targeted else margin(logits, y)
    high, low = logits.amax(1), logits.amin(1)
    least = _ROUNDING * (high - low) + _LAST_PLACES * torch.maximum(high.abs(), low.abs())
    finite = torch.isfinite(logits).all(1)
    return (lead > least) & finite, torch.where(finite, -lead, torch.inf)


def span_of(logits: Tensor) -> Tensor:
    """(N,) the largest logit less the smallest, at least the smallest float."""
    span = logits.amax(1) - logits.amin(1)
    return span.clamp(min=torch.finfo(span.dtype).tiny)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        span = logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)
        stretch = _SPAN / span.clamp(min=torch.finfo(logits.dtype).tiny * _SPAN)
    centred = logits - logits.detach().amax(1, keepdim=True)
    return functional.cross_entropy(centred * stretch, y, reduction="none")


def _dlr(logits: Tensor, y: Tensor, targeted: bool) -> Tensor:
    needed = 4 if targeted else 3
    if logits.shape[1] < needed:
        return margin(logits, y)
    top = logits.topk(needed, dim=1).values
    low = (top[:, 2] + top[:, 3]) / 2 if targeted else top[:, 2]
    return margin(logits, y) / (top[:, 0] - low).clamp(min=1e-12)


def are_probabilities(logits: Tensor) -> bool:
    """Do all outputs (N, K) lie in [0, 1] and sum to 1?"""
    finite = logits[torch.isfinite(logits).all(1)]
    sums = (finite.sum(1) - 1).abs() < 1e-3
    return bool(len(finite) and ((finite >= 0) & (finite <= 1)).all() and sums.all())
