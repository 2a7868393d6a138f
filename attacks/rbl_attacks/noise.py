"""Random noise: the least that every other attack must beat."""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from robustbench_lite.attack import Attack, Walk
from robustbench_lite.geometry import Norm, flat_norm, keep_largest, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat


class Kind(StrEnum):
    """What the noise is drawn from."""

    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"


@dataclass(frozen=True)
class Noise(Attack):
    """Independent random points of the threat; it looks at labels only.

    Of `uniform` noise every second draw comes from the whole ball, the others from its outside:
    in Linf its corners, in L2 the sphere, in L1 the sphere (all components or a few), in L0 some
    components at 0 or 1. `gaussian` noise has a standard deviation of eps and is cut at eps in
    Linf; in L2 and L1 it is stretched to length eps; in L0 it is added to some components, with a
    standard deviation of 1.

    Args:
        steps: draws; one more is the last look that every attack gets.
        kind: of the noise.
    """

    needs = Access.DECISIONS

    steps: int = 100
    kind: Kind = Kind.UNIFORM

    def supports(self, threat: Threat) -> bool:
        """Every norm."""
        return isinstance(threat, Lp) and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """The first draw."""
        return Walk(self._draw(oracle.threat, x, rng))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """Ask about a draw and make the next."""
        oracle.labels(state.adv)
        return Walk(self._draw(oracle.threat, x, rng))

    def _draw(self, threat: Lp, x: Tensor, rng: Rng) -> Tensor:
        outer = self._outer(threat, x, rng)
        if self.kind is Kind.GAUSSIAN:
            return outer
        return torch.where(per_row(rng.signs() > 0, x), outer, threat.random_point(x, rng))

    def _outer(self, threat: Lp, x: Tensor, rng: Rng) -> Tensor:
        """Gaussian noise, or uniform noise on the outside of the ball."""
        shape, uniform = x.shape[1:], self.kind is Kind.UNIFORM
        match threat.norm:
            case Norm.LINF:
                d = rng.signs(*shape) if uniform else rng.normal(*shape)
            case Norm.L2:
                d = _stretched(rng.normal(*shape), Norm.L2)
            case Norm.L1:
                d = rng.signs(*shape) * rng.exponential(*shape) if uniform else rng.normal(*shape)
                d = _stretched(d * _few(x, rng), Norm.L1)
            case Norm.L0:
                some = keep_largest(rng.uniform(*shape), int(threat.eps)) > 0
                value = rng.signs(*shape) if uniform else x + rng.normal(*shape)
                return torch.where(some, value.clamp(0, 1), x)
        return threat.project(x, x + threat.eps * d)


def _stretched(d: Tensor, norm: Norm) -> Tensor:
    return d / per_row(flat_norm(d, norm).clamp(min=1e-30), d)


def _few(x: Tensor, rng: Rng) -> Tensor:
    """A mask of 1, 2, 4, ... or all components, each number with the same probability."""
    components = x[0].numel() if len(x) else 1
    count = (2 ** rng.integers(components.bit_length() + 1)).clamp(max=components)
    return keep_largest(rng.uniform(*x.shape[1:]), count) > 0
