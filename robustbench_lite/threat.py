"""What the attacker may do: how far an image may move, and what may be asked of the classifier.

Images live in the box [0, 1]; every geometry here keeps to it. Distances are sums over all
components of an image (channels, rows, columns), computed in float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from robustbench_lite.errors import InputError
from robustbench_lite.geometry import Norm as Norm  # users look for it beside Lp
from robustbench_lite.geometry import (
    fill_l1,
    flat_norm,
    free,
    in_box,
    keep_largest,
    per_row,
    project_ball,
)
from robustbench_lite.rng import Rng


class Access(IntEnum):
    """What the attacker sees of the classifier; each includes the former."""

    DECISIONS = 0
    SCORES = 1
    GRADIENTS = 2


@runtime_checkable
class Threat(Protocol):
    """A value that says which images the attacker may hand in and what may be asked.

    A proposal `adv` is what an attack moves: the image itself, or the parameters of a change such
    as an angle, one row a sample.
    """

    @property
    def access(self) -> Access:
        """What the attacker sees of the classifier."""
        ...

    @property
    def queries(self) -> int | None:
        """How many forward passes a sample may cost; None for no limit."""
        ...

    def origin(self, x: Tensor) -> Tensor:
        """(N, ...) the proposals that leave the images `x` (N, C, H, W) as they are."""
        ...

    def render(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1]: the images that the classifier is shown for the proposals."""
        ...

    def size(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) float64: how far each proposal goes."""
        ...

    def contains(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) bool: is each proposal allowed?"""
        ...

    def to_json(self) -> dict[str, Any]:
        """What defines it, as JSON's types."""
        ...


@dataclass(frozen=True)
class Lp:
    """All images of the box within `eps` of the original, in an Lp norm.

    Args:
        norm: the distance.
        eps: the largest distance, in units of pixel values in [0, 1] (L0: changed components).
        access: what the attacker sees of the classifier.
        queries: forward passes allowed a sample; None for no limit.

    Raises:
        InputError: `eps` is negative or NaN, or `queries` is below 1.
    """

    norm: Norm
    eps: float = math.inf
    access: Access = Access.GRADIENTS
    queries: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.norm, Norm):
            object.__setattr__(self, "norm", Norm(self.norm))
        if math.isnan(self.eps) or self.eps < 0:
            raise InputError(f"eps is {self.eps}; give a number that is 0 or larger, such as 8/255")
        if self.queries is not None and self.queries < 1:
            raise InputError(f"queries is {self.queries}; give 1 or more, or leave it out")

    def __str__(self) -> str:
        return f"{self.norm} {self.eps:.4g}"

    def to_json(self) -> dict[str, Any]:
        """Norm, eps (None where there is no limit), access and queries."""
        return {
            "norm": str(self.norm),
            "eps": self.eps if self.eps < math.inf else None,
            "access": self.access.name.lower(),
            "queries": self.queries,
        }

    def origin(self, x: Tensor) -> Tensor:
        """The images themselves."""
        return x

    def render(self, x: Tensor, adv: Tensor) -> Tensor:
        """The proposals, clipped to the box."""
        return adv.clamp(0, 1)

    def size(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) float64: the norm of each `adv - x`."""
        return flat_norm(adv.to(torch.float64, copy=True).sub_(x), self.norm)

    def contains(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) bool: in the box and within eps, up to the rounding of float32."""
        return in_box(adv) & self.reaches(self.size(x, adv))

    def reaches(self, size: Tensor) -> Tensor:
        """(N,) bool: is each `size` within eps, up to the rounding of float32?"""
        slack = 1e-5 * self.eps + 1e-7 if 0 < self.eps < math.inf else 0.0
        return size <= self.eps + slack

    def project(self, x: Tensor, adv: Tensor) -> Tensor:
        """A point of the threat near each `adv` (N, ...).

        The ball first and then the box: clipping to the box only moves components towards `x`,
        so the result is in both.
        """
        return self.projection(x)(adv)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around `x` (N, ...), for who projects more than once."""
        if self.eps == math.inf:
            return lambda adv: adv.clamp(0, 1)
        if self.norm is Norm.LINF:
            low, high = ((x + side).clamp_(0, 1) for side in (-self.eps, self.eps))
            return lambda adv: adv.clamp(low, high)
        return lambda adv: (x + project_ball(adv - x, self.norm, self.eps)).clamp_(0, 1)

    def random_point(self, x: Tensor, rng: Rng) -> Tensor:
        """A point drawn uniformly from the ball around each `x` (N, ...), clipped to the box."""
        shape = x.shape[1:]
        radius = min(self.eps, float(math.prod(shape)))
        if self.norm is Norm.LINF:
            d = rng.uniform(*shape).mul_(2).sub_(1)
        elif self.norm is Norm.L2:
            direction = rng.normal(*shape)
            length = flat_norm(direction, Norm.L2).clamp(min=1e-30)
            d = direction * per_row(rng.uniform() ** (1 / math.prod(shape)) / length, x)
        elif self.norm is Norm.L1:
            sizes = rng.exponential(*shape)
            total = flat_norm(sizes, Norm.L1) + rng.exponential()
            d = rng.signs(*shape) * sizes / per_row(total, x)
        else:
            changed = keep_largest(rng.uniform(*shape), int(self.eps)) > 0
            return torch.where(changed, rng.uniform(*shape), x)
        return self.project(x, x + radius * d.to(x.dtype))

    def farthest(self, gradient: Tensor, adv: Tensor, length: float) -> Tensor:
        """One move of `length` from `adv` along which the loss rises most (N, ...).

        In L1 a single component would soon stand at the box; so the steepest ones are filled up
        one after the other. In the other norms it is `length` times `steepest`.
        """
        if self.norm is Norm.L1:
            return fill_l1(gradient, adv, length)
        return length * self.steepest(gradient, adv)

    def steepest(self, gradient: Tensor, adv: Tensor) -> Tensor:
        """The move of norm 1 from `adv` along which the loss rises fastest (N, ...).

        Components that stand at the box and would leave it are left out, so that the whole move
        counts. A zero gradient gives a zero move. In L1 the best single component is wasteful;
        the largest hundredth shares the move (after Tramer and Boneh 2019, arXiv:1904.13000,
        section 4).
        """
        if self.norm is Norm.LINF:
            return gradient.sign()
        slope = free(gradient, adv)
        top = per_row(flat_norm(slope, Norm.LINF), slope)
        slope = slope / top.clamp(min=torch.finfo(slope.dtype).tiny)
        if self.norm is Norm.L2:
            return slope / per_row(flat_norm(slope, Norm.L2), slope).clamp(min=1e-12)
        slope = keep_largest(slope, max(1, slope[0].numel() // 100) if len(slope) else 1)
        return slope / per_row(flat_norm(slope, Norm.L1), slope).clamp(min=1e-12)


def measured(threat: Threat, x: Tensor, adv: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) float64 `size` and (N,) bool `contains` of each proposal, for little more than one."""
    size = threat.size(x, adv)
    if type(threat) is Lp:  # a kind of it may allow less
        return size, in_box(adv) & threat.reaches(size)
    return size, threat.contains(x, adv)
