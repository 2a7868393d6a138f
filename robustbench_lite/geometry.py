"""The geometry of the Lp norms, a radius a row: lengths, projections, largest components.

Every function takes differences `d` (N, ...) and treats each row by itself. A radius or a count is
one number for all rows or a tensor (N,).
"""

from enum import StrEnum

import torch
from torch import Tensor

_BISECTIONS = 40


class Norm(StrEnum):
    """A distance between images."""

    L0 = "l0"
    L1 = "l1"
    L2 = "l2"
    LINF = "linf"

    @property
    def dual(self) -> "Norm":
        """The norm that measures gradients where this one measures moves (L0: as for L1)."""
        match self:
            case Norm.L2:
                return Norm.L2
            case Norm.LINF:
                return Norm.L1
        return Norm.LINF


def free(gradient: Tensor, adv: Tensor) -> Tensor:
    """The gradient without the components that stand at the box and would leave it."""
    stuck = ((adv <= 0) & (gradient < 0)) | ((adv >= 1) & (gradient > 0))
    return gradient.masked_fill(stuck, 0)


def in_box(images: Tensor) -> Tensor:
    """(N,) bool: are all components of each row of `images` (N, ...) in [0, 1]? NaN is not."""
    rows = images.flatten(1)
    return (rows.amin(1) >= 0) & (rows.amax(1) <= 1)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """`values` (N,) shaped so that they multiply the rows of `like` (N, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def flat_norm(d: Tensor, norm: Norm) -> Tensor:
    """(N,) norm of each row of `d` (N, ...), in the dtype of `d`."""
    rows = d.flatten(1)
    match norm:
        case Norm.L0:
            return (rows != 0).sum(1).to(d.dtype)
        case Norm.L1:
            return rows.abs().sum(1)
        case Norm.L2:
            return rows.square().sum(1).sqrt()
        case Norm.LINF:
            return rows.abs().amax(1)


def project_ball(d: Tensor, norm: Norm, radius: float | Tensor) -> Tensor:
    """The nearest point of the ball of `radius` to each row, in the Euclidean sense.

    In L0 the radius is rounded down to a whole number of components.
    """
    limit = _of_rows(radius, d)
    match norm:
        case Norm.L0:
            return keep_largest(d, limit.floor().long())
        case Norm.L1:
            return _project_l1(d, limit)
        case Norm.L2:
            length = flat_norm(d, Norm.L2).clamp(min=1e-30)
            return d * per_row((limit / length).clamp(max=1.0), d)
        case Norm.LINF:
            bound = per_row(limit, d)
            return torch.minimum(torch.maximum(d, -bound), bound)


def keep_largest(d: Tensor, count: int | Tensor) -> Tensor:
    """Each row with all but its `count` components of largest absolute value set to zero."""
    rows = d.flatten(1)
    if isinstance(count, int):
        wanted = min(count, rows.shape[1])
        if wanted == 0:
            return torch.zeros_like(d)
        keep = rows.abs().topk(wanted, dim=1).indices
        return torch.zeros_like(rows).scatter(1, keep, rows.gather(1, keep)).reshape(d.shape)
    order = rows.abs().argsort(dim=1, descending=True, stable=True)
    places = torch.arange(rows.shape[1], device=d.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, places)
    return rows.masked_fill(rank >= count[:, None], 0).reshape(d.shape)


def _of_rows(value: float | Tensor, d: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(d.dtype)
    return torch.full((len(d),), value, dtype=d.dtype, device=d.device)


def _project_l1(d: Tensor, radius: Tensor) -> Tensor:
    """Duchi et al. 2008 (Efficient projections onto the L1 ball), figure 1."""
    rows = d.flatten(1)
    size = rows.abs()
    ordered = size.sort(dim=1, descending=True).values
    ranks = torch.arange(1, rows.shape[1] + 1, device=d.device, dtype=d.dtype)
    excess = (ordered.cumsum(1) - radius[:, None]) / ranks
    last = ((ordered > excess).sum(1, keepdim=True) - 1).clamp(min=0)
    cut = excess.gather(1, last).clamp(min=0)
    left = (size - cut).clamp(min=0)
    # Cutting long moves down to a small radius rounds by more than the radius forgives.
    total = left.sum(1, keepdim=True)
    left = torch.where(total > radius[:, None], left * (radius[:, None] / total), left)
    return (rows.sign() * left).reshape(d.shape)


def fill_l1(slope: Tensor, adv: Tensor, length: float) -> Tensor:
    """The move of L1 norm `length` within the box that gains most along `slope` (both (N, ...)).

    The steepest components go to the box one after the other until the length is used up.
    """
    rows, start = slope.flatten(1), adv.flatten(1)
    room = torch.where(rows > 0, 1 - start, start).masked_fill(rows == 0, 0)
    order = rows.abs().argsort(dim=1, descending=True, stable=True)
    space = room.gather(1, order)
    size = (length - (space.cumsum(1) - space)).clamp(min=0).minimum(space)
    return (torch.zeros_like(rows).scatter(1, order, size) * rows.sign()).reshape(slope.shape)


def project_l1_box(x: Tensor, d: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest move to each row of `d` that is in the L1 ball of `radius` and keeps to [0, 1].

    Exact up to 2^-40 of the largest component: every component is shortened by the same amount,
    not below 0 and not beyond the box (Croce and Hein 2021, arXiv:2103.01208, proposition 3.1).

    Args:
        x: (N, ...) images that the moves start from.
        d: (N, ...) moves.
        radius: of the ball.
    """
    rows, limit = d.flatten(1), _of_rows(radius, d)
    room = torch.where(rows > 0, 1 - x.flatten(1), x.flatten(1))
    size = rows.abs()
    low = torch.zeros_like(limit)
    high = size.amax(1)
    boxed = size.minimum(room)
    tight = boxed.sum(1) > limit
    if bool(tight.any()):
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            over = (size - middle[:, None]).clamp(min=0).minimum(room).sum(1) > limit
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        cut = torch.where(tight, high, 0.0)
        boxed = (size - cut[:, None]).clamp(min=0).minimum(room)
    return (rows.sign() * boxed).reshape(d.shape)
