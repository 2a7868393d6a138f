"""Checks against closed-form answers: how far a linear or piecewise-linear model lets one go."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_lite.data import Dataset
from robustbench_lite.testing.models import generator, signed_weights
from robustbench_lite.testing.trial import Trial, require
from robustbench_lite.threat import Access, Norm

_COLUMNS = 36
_ROUNDING = 1e-5
_NEAR = 1.1  # a minimal attack's mean size by the exact one, on a linear model
_NEAR_FACES = 1.5  # the same where the nearest of several faces must be found
_EASY = 0.8  # what stands nearer than this share of eps, an attack at a fixed eps must break
_BISECTIONS = 60


class Faces(nn.Module):
    """Class 1 wherever one of several half-spaces holds; class 0 elsewhere.

    Args:
        weight: (F, components) the normals of the faces.
        offset: (F,) face f holds where weight[f] x > offset[f].
    """

    def __init__(self, weight: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(weight), nn.Parameter(offset)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) logits."""
        beyond = (x.flatten(1) @ self.weight.T - self.offset).amax(1)
        return torch.stack([-beyond, beyond], 1)


def halfspace_distance(x: Tensor, weight: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """(N,) float64: how far it is from each image into a half-space, within the box.

    Args:
        x: (N, D) images in [0, 1].
        weight: (D,) the normal.
        gap: (N,) what `weight @ d` must reach.
        norm: of the distance.

    Returns:
        The exact minimum over moves d with x + d in the box; inf where the box is too small, 0
        where the gap is not positive.
    """
    slope = weight.double().abs().expand_as(x)
    room = torch.where(weight > 0, 1 - x.double(), x.double())
    gap = gap.double()
    within = (slope * room).sum(1) >= gap
    match norm:
        case Norm.LINF:
            size = _bisected(lambda t: (slope * room.minimum(t)).sum(1), gap)
        case Norm.L2:
            scale = _bisected(lambda t: (slope * room.minimum(t * slope)).sum(1), gap)
            size = room.minimum(scale[:, None] * slope).square().sum(1).sqrt()
        case Norm.L1:
            order = slope.argsort(1, descending=True)
            steep, space = slope.gather(1, order), room.gather(1, order)
            before = (steep * space).cumsum(1) - steep * space
            size = ((gap[:, None] - before) / steep).clamp(min=0).minimum(space).sum(1)
        case Norm.L0:
            gains = (slope * room).sort(1, descending=True).values.cumsum(1)
            size = 1.0 + (gains < gap[:, None]).sum(1)
    size = torch.where(within, size, torch.inf)
    return torch.where(gap > 0, size, 0.0)


def _bisected(reached: Callable[[Tensor], Tensor], gap: Tensor) -> Tensor:
    low = torch.zeros_like(gap)
    high = torch.full_like(gap, 1e3)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        enough = reached(middle[:, None]) >= gap
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high


@dataclass(frozen=True)
class _Known:
    model: nn.Module
    data: Dataset
    distance: Tensor  # (N,) float64


def _faces(norm: Norm, count: int, seed: int) -> _Known:
    """Images of class 0 with the exact distance to class 1."""
    weight = signed_weights(count, _COLUMNS, seed)
    x = 0.3 + 0.4 * torch.rand(16, _COLUMNS, generator=generator(seed + 7))
    beyond = x @ weight.T
    offset = beyond.amax(0) + 0.05 * (1 + torch.rand(count, generator=generator(seed + 8)))
    gaps = offset - beyond
    each = [halfspace_distance(x, weight[f], gaps[:, f], norm) for f in range(count)]
    data = Dataset(x.reshape(-1, 1, 6, 6), torch.zeros(16, dtype=torch.long), "exact")
    return _Known(Faces(weight, offset), data, torch.stack(each).amin(0))


def never_below(trial: Trial) -> str:
    """No adversarial example is nearer than the nearest that exists."""
    told = 0
    for threat in trial.balls:
        for count in (1, 4):
            known = _faces(threat.norm, count, 11)
            outcome = trial.run(known.model, replace(threat, eps=10 * threat.eps), known.data)
            for i, record in enumerate(outcome.records):
                if record.size is None:
                    continue
                told += 1
                least = float(known.distance[i]) * (1 - _ROUNDING) - _ROUNDING
                why = f"{threat.norm}: sample {i} has size {record.size:.6g}, the least possible"
                require(record.size >= least, f"{why} is {float(known.distance[i]):.6g}")
    return f"{told} sizes" if told else "not applicable: nothing was found"


def near_linear(trial: Trial) -> str:
    """With gradients, a linear model gives way where it must: nearly the exact answer."""
    return _near(trial, 1, _NEAR)


def near_piecewise(trial: Trial) -> str:
    """With gradients, the nearest of four faces is found, or one not much farther."""
    return _near(trial, 4, _NEAR_FACES)


def _near(trial: Trial, count: int, factor: float) -> str:
    if trial.attack.least_access < Access.GRADIENTS:
        return f"not applicable: it needs {trial.attack.least_access.name.lower()} only"
    seen = []
    for threat in trial.balls:
        known = _faces(threat.norm, count, 3)
        if trial.minimal:
            outcome = trial.run(known.model, replace(threat, eps=torch.inf), known.data)
            sizes = torch.tensor([r.size or torch.inf for r in outcome.records])
            ratio = float(sizes.mean() / known.distance.mean())
            require(ratio <= factor, f"{threat.norm}: {ratio:.3f} times the exact distance")
            seen.append(f"{threat.norm} {ratio:.3f}")
            continue
        eps = float(known.distance.median()) / _EASY
        if threat.norm is Norm.L0:
            eps = float(torch.tensor(eps).ceil())
        outcome = trial.run(known.model, replace(threat, eps=eps), known.data)
        easy = known.distance <= _EASY * eps
        left = [i for i, r in enumerate(outcome.records) if easy[i] and r.robust]
        total = int(easy.sum())
        require(not left, f"{threat.norm}: {len(left)} of {total} easy samples are still robust")
        seen.append(f"{threat.norm} {total} of {total}")
    return ", ".join(seen) if seen else "not applicable: it supports no Lp norm"
