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

    Of `uniform` noise about every second draw comes from the whole ball, the others from its
    outside: in Linf its corners, in L2 the sphere, in L1 points at distance eps of which 1, 2, 4,
    ... or all components differ from the image, in L0 components at 0 or 1. `gaussian` noise has a
    standard deviation of eps and is cut at eps in Linf; in L2 and L1 it is stretched to length eps
    (in L1 it is as sparse as the uniform one outside); in L0 it is added to some components, with
    a standard deviation of 1.

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
        shape, gaussian = x.shape[1:], self.kind is Kind.GAUSSIAN
        inside = per_row((rng.uniform() > 0.5) & (not gaussian), x)
        normal = gaussian or threat.norm is Norm.L2
        value = rng.normal(*shape) if normal else 2 * rng.uniform(*shape) - 1
        match threat.norm:
            case Norm.LINF:
                d = value if gaussian else torch.where(inside, value, value.sign())
                return threat.project(x, x + threat.eps * d)
            case Norm.L0:
                some = keep_largest(rng.uniform(*shape), int(threat.eps)) > 0
                level = torch.where(inside, (1 + value) / 2, (value > 0).to(x.dtype))
                return torch.where(some, (x + value if gaussian else level).clamp(0, 1), x)
            case Norm.L1:
                d = value if gaussian else value.sign() * -value.abs().log()
                d = d * (inside | _few(x, rng))
            case Norm.L2:
                d = value
        radius = torch.where(inside, per_row(rng.uniform(), x) ** (1 / max(1, x[:1].numel())), 1.0)
        length = per_row(flat_norm(d, threat.norm).clamp(min=1e-30), d)
        return threat.project(x, x + threat.eps * radius / length * d)


def _few(x: Tensor, rng: Rng) -> Tensor:
    """A mask of 1, 2, 4, ... or all components, each number with the same probability."""
    count = 2 ** rng.integers(x[:1].numel().bit_length() + 1)
    return keep_largest(rng.uniform(*x.shape[1:]), count) > 0
