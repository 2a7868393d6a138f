"""Tiny classifiers whose answers are known, and images for them. Nothing is downloaded or trained.

Every classifier takes images of any shape; every random number comes from a generator of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lite.data import Dataset
from robustbench_lite.threat import Lp, Norm, Threat

_CENTRE = 0.5


class Linear(nn.Module):
    """`scale * weight (x - 0.5) + offset`; all classes meet at the grey image.

    Args:
        weight: (K, components).
        scale: multiplies all logits.
        offset: is added to all logits.
    """

    def __init__(self, weight: Tensor, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.scale, self.offset = scale, offset

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        return self.scale * ((x.flatten(1) - _CENTRE) @ self.weight.T) + self.offset


class Band(nn.Module):
    """Class 1 only where the first component along `weight` is near `centre`; else class 0.

    Who walks too far comes out on the other side: the adversarial images are passed through.
    """

    def __init__(self, weight: Tensor, centre: float, half_width: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.centre, self.half_width = centre, half_width

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) logits."""
        along = (x.flatten(1) - _CENTRE) @ self.weight
        won = 1 - ((along - self.centre) / self.half_width).square()
        return torch.stack([torch.zeros_like(won), won], 1)


class Constant(nn.Module):
    """Class 0 whatever the image; its gradient is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) logits."""
        nothing = x.flatten(1)[:, :1] * 0
        return torch.cat([nothing + 1, nothing, nothing], 1)


class Plateau(nn.Module):
    """Around the images of `frozen` and around the grey image the logits do not move at all.

    Args:
        model: gives the logits elsewhere.
        radius: logits change only where some component is farther than this from 0.5.
        frozen: images whose first component is above this are of class 0 for ever.
    """

    def __init__(self, model: nn.Module, radius: float, frozen: float = 2.0) -> None:
        super().__init__()
        self.model, self.radius, self.frozen = model, radius, frozen

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        flat = nn.functional.softshrink(x - _CENTRE, self.radius) + _CENTRE
        logits: Tensor = self.model(flat)
        home = torch.zeros_like(logits)
        home[:, 0] = 1e-3
        first = x.flatten(1)[:, :1]
        return torch.where(first > self.frozen, home, logits + home)


class Broken(nn.Module):
    """NaN logits for images of which a component lies outside [low, high]."""

    def __init__(self, model: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.model, self.low, self.high = model, low, high

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        outside = ((x < self.low) | (x > self.high)).flatten(1).any(1, keepdim=True)
        logits: Tensor = self.model(x)
        return torch.where(outside, torch.nan, logits)


class Skittish(nn.Module):
    """NaN logits for every image that is not one of `homes`."""

    def __init__(self, model: nn.Module, homes: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("homes", homes.flatten(1))

    homes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        apart = (x.flatten(1)[:, None] - self.homes).abs().amax(2).amin(1, keepdim=True)
        logits: Tensor = self.model(x)
        return torch.where(apart > 1e-7, torch.nan, logits)


class ScoresOnly(nn.Module):
    """The logits of `model` without any gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits


class DecisionsOnly(ScoresOnly):
    """1 for the class that `model` predicts, 0 for the others."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        logits = super().forward(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


class Recorder(nn.Module):
    """Counts, and where asked keeps, every image that `model` is asked about.

    `len(x)` cannot be traced, so no faster copy of it is made and nothing goes unseen.
    """

    def __init__(self, model: nn.Module, *, keep: bool = False) -> None:
        super().__init__()
        self.model, self.keep = model, keep
        self.rows = 0
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits."""
        self.rows += len(x)
        if self.keep:
            self.seen.append(x.detach().clone())
        logits: Tensor = self.model(x)
        return logits


@dataclass(frozen=True)
class Problem:
    """A classifier with images that it knows."""

    model: nn.Module
    data: Dataset


def generator(seed: int) -> torch.Generator:
    """A random stream of its own."""
    return torch.Generator().manual_seed(seed)


def reach(weight: Tensor, threat: Lp) -> float:
    """How far an image can move along `weight` within eps, the box left aside."""
    size = weight.abs().flatten()
    match threat.norm:
        case Norm.LINF:
            return threat.eps * float(size.sum())
        case Norm.L2:
            return threat.eps * float(size.norm())
        case Norm.L1:
            return threat.eps * float(size.max())
        case Norm.L0:
            count = min(int(threat.eps), len(size))
            return _CENTRE * float(size.topk(count).values.sum())


def signed_weights(rows: int, columns: int, seed: int) -> Tensor:
    """(rows, columns) numbers of size 0.5 to 1 with random signs: none can be neglected."""
    draw = torch.rand(rows, columns, generator=generator(seed))
    sign = torch.rand(rows, columns, generator=generator(seed + 1)).round() * 2 - 1
    return sign * (0.5 + 0.5 * draw)


def linear_problem(
    threat: Threat,
    distances: Sequence[float],
    *,
    shape: tuple[int, int, int] = (1, 6, 6),
    classes: int = 2,
    seed: int = 0,
) -> Problem:
    """One image a distance; it stands that many eps away from the nearest other class.

    (In the direction of steepest descent and with the box left aside; distances of several eps
    come out somewhat smaller where the box cuts them.) A threat without eps gets as many random
    images instead.
    """
    columns = shape[0] * shape[1] * shape[2]
    weight = signed_weights(classes, columns, seed)
    if not isinstance(threat, Lp):
        noise = torch.rand(len(distances), *shape, generator=generator(seed + 2))
        return labelled(Linear(weight), noise)
    jitter = torch.rand(len(distances), columns, generator=generator(seed + 2)) - 0.5
    images = []
    for start, distance in zip(_CENTRE + 0.1 * jitter, distances, strict=True):
        logits = weight @ (start - _CENTRE)
        own = int(logits.argmax())
        apart = weight[own] - weight
        gap = (logits[own] - logits) / apart.norm(dim=1)
        gap[own] = torch.inf
        toward = apart[int(gap.argmin())]
        wanted = distance * reach(toward, threat)
        move = (wanted - toward @ (start - _CENTRE)) / toward.square().sum()
        images.append((start + move * toward).clamp(0, 1))
    model = Linear(weight)
    return labelled(model, torch.stack(images).reshape(-1, *shape))


def conv_problem(
    n: int, *, shape: tuple[int, int, int] = (1, 6, 6), classes: int = 5, seed: int = 0
) -> Problem:
    """A convolution, a batch norm with statistics of its own and a linear layer, all random.

    The last bias is chosen so that the classes are balanced and the margins small.
    """
    channels, rows, columns = shape
    conv = nn.Conv2d(channels, 4, 3, padding=1)
    norm = nn.BatchNorm2d(4)
    last = nn.Linear(4 * rows * columns, classes)
    stream = generator(seed)
    with torch.no_grad():
        for p in [*conv.parameters(), *norm.parameters(), *last.parameters()]:
            p.copy_(torch.randn(p.shape, generator=stream) / max(1, p[0].numel()) ** 0.5)
        for buffer in (norm.running_mean, norm.running_var):
            if buffer is not None:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=stream))
        model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), last).eval()
        x = 0.1 + 0.8 * torch.rand(n, *shape, generator=stream)
        last.bias.sub_(model(x).mean(0))
    return labelled(model, x)


def labelled(model: nn.Module, x: Tensor) -> Problem:
    """The images with the labels that `model` predicts."""
    with torch.no_grad():
        return Problem(model, Dataset(x, model(x).argmax(1), "reference"))
