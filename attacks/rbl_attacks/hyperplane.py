"""The nearest move onto a hyperplane within the box, exactly, for L1, L2 and Linf.

Croce and Hein 2020, arXiv:1907.02044, section 3.1: in every norm the best move goes, per component,
along the normal up to a bound that grows with one number, and stops at the box. That number is
found by Newton's method on a concave piecewise-linear function, which ends exactly.
"""

import torch
from torch import Tensor

from robustbench_lite.geometry import Norm

_NEWTON = 12


def onto_hyperplane(x: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The shortest move d of each image with normal * d summing to `gap` and x + d in the box.

    Args:
        x: (N, ...) images in [0, 1].
        normal: (N, ...) of each hyperplane.
        gap: (N,) what the sum must reach; a negative one is reached in the other direction.
        norm: in which the move is short.

    Returns:
        (N, ...) moves; where the box does not reach the hyperplane, the move to its corner.
    """
    turn = torch.where(gap < 0, -1.0, 1.0).to(x.dtype)
    rows, wanted = normal.flatten(1) * turn[:, None], gap.abs()
    steep = rows.abs()
    room = torch.where(rows > 0, 1 - x.flatten(1), x.flatten(1)).clamp(min=0)
    room = room.masked_fill(steep == 0, 0)
    if norm is Norm.L1:
        size = _steepest_first(steep, room, wanted)
    else:
        pace = torch.ones_like(steep) if norm is Norm.LINF else steep
        size = _at_one_pace(steep, room, pace, wanted)
    return (rows.sign() * size).reshape(x.shape)


def _at_one_pace(steep: Tensor, room: Tensor, pace: Tensor, wanted: Tensor) -> Tensor:
    """min(room, t * pace), with t such that steep * that sums to `wanted`.

    The sum is concave and piecewise linear in t, so Newton from t = 0 never overshoots.
    """
    t = torch.zeros_like(wanted)
    tiny = torch.finfo(steep.dtype).tiny
    product = steep * pace
    for _ in range(_NEWTON):
        ahead = t[:, None] * pace
        open_ = ahead < room
        reached = (steep * torch.where(open_, ahead, room)).sum(1)
        slope = (product * open_).sum(1)
        missing = (wanted - reached).clamp(min=0)
        step = torch.where(slope > 0, missing / slope.clamp(min=tiny), 0.0)
        if not bool((step > 1e-6 * t).any()):
            break
        t = t + step
    return room.minimum(t[:, None] * pace)


def _steepest_first(steep: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """The steepest components go to the box one after the other, the last as far as needed."""
    order = steep.argsort(1, descending=True)
    slope, space = steep.gather(1, order), room.gather(1, order)
    gain = slope * space
    before = gain.cumsum(1) - gain
    part = (wanted[:, None] - before) / slope.clamp(min=torch.finfo(slope.dtype).tiny)
    size = part.clamp(min=0).minimum(space)
    return torch.zeros_like(size).scatter(1, order, size)
