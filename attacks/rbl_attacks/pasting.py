"""Patches on images: where each slot's own rectangle is, cut out and pasted in."""

import torch
from torch import Tensor


def window(x: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """(N, C, height, width): what stands in each slot's rectangle.

    Args:
        x: (N, C, H, W) images.
        corner: (N, 2) row and column of each rectangle's upper left pixel.
        height: of the rectangles.
        width: of the rectangles.
    """
    rows = corner[:, :1] + torch.arange(height, device=x.device)
    columns = corner[:, 1:] + torch.arange(width, device=x.device)
    slots = torch.arange(len(x), device=x.device)[:, None, None]
    return x[slots, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def pasted(x: Tensor, content: Tensor, corner: Tensor) -> Tensor:
    """(N, C, H, W): the images with `content` (N, C, h, w) at each slot's `corner` (N, 2)."""
    height, width = content.shape[2:]
    rows = torch.arange(x.shape[2], device=x.device) - corner[:, :1]
    columns = torch.arange(x.shape[3], device=x.device) - corner[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    slots = torch.arange(len(x), device=x.device)[:, None, None]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    painted = content[slots, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(inside[:, None], painted, x)
