"""What is done to training images, keyed by sample and epoch."""

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.card import Recipe
from robustbench_lite.rng import Rng

_PAD = 4


def augmented(x: Tensor, rng: Rng, recipe: Recipe) -> Tensor:
    """(N, C, H, W) images cropped, mirrored and cut out as the recipe says."""
    if recipe.augment != "none":
        x = _moved(x, rng, mirror=recipe.augment == "crop-flip")
    return _cut_out(x, rng, recipe.cutout) if recipe.cutout else x


def _moved(x: Tensor, rng: Rng, *, mirror: bool) -> Tensor:
    """A random crop after zero padding by 4, and where asked a random mirror image."""
    n, _, height, width = x.shape
    padded = functional.pad(x, (_PAD,) * 4)
    shift = rng.integers(2 * _PAD + 1, 2)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if mirror:
        columns = torch.where(rng.integers(2, 1).bool(), columns.flip(1), columns)
    rows = torch.arange(height, device=x.device)[None, :] + shift[:, :1]
    columns = columns + shift[:, 1:]
    samples = torch.arange(n, device=x.device)[:, None, None]
    picked = padded[samples, :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _cut_out(x: Tensor, rng: Rng, side: int) -> Tensor:
    """A square of zeros about a random pixel (DeVries and Taylor 2017, arXiv:1708.04552)."""
    _, _, height, width = x.shape
    top = rng.integers(height, 1) - side // 2
    left = rng.integers(width, 1) - side // 2
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside = ((rows >= top) & (rows < top + side))[:, :, None]
    inside = inside & ((columns >= left) & (columns < left + side))[:, None, :]
    return x.masked_fill(inside[:, None], 0.0)
