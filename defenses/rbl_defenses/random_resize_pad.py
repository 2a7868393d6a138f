"""Random resizing and padding (Xie et al. 2018, arXiv:1711.01991, section 3)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from robustbench_lite.defense import Transform
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class RandomResizePad(Transform):
    """The image at a random smaller size and a random place, with zeros around it.

    The paper enlarges images and pads them to one larger size; a classifier of small images takes
    one size only, so the image shrinks within it. It can be differentiated; an adaptive attacker
    averages over draws (EOT).

    Args:
        smallest: the least size, as a share of the image's; the paper's range is 299 in 331.
    """

    randomized: ClassVar[bool] = True

    smallest: Annotated[float, Field(gt=0, lt=1)] = 0.8

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W)."""
        size = self.smallest + (1 - self.smallest) * rng.uniform(1, 1)
        place = (2 * rng.uniform(2, 1) - 1) * (1 - size)
        scale = torch.eye(2, device=x.device) / size
        placed = torch.cat([scale, -place / size], 2).to(x.dtype)
        grid = functional.affine_grid(placed, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) the moved image itself."""
        return self.images(x, rng)
