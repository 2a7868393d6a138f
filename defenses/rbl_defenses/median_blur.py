"""Median smoothing (Xu et al. 2018, arXiv:1704.01155, section III.B)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from robustbench_lite.defense import Transform
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class MedianBlur(Transform):
    """Each pixel replaced by the median of the window around it, with mirrored edges.

    It can be differentiated (towards the pixel that is the median), so nothing stands in for it.

    Args:
        window: rows and columns of the window; 2 and 3 in the paper. Of an even window the pixel
            is the lower right of the centre.
    """

    window: Annotated[int, Field(ge=2, le=9)] = 3

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W)."""
        before, after = self.window // 2, (self.window - 1) // 2
        # Mirroring needs more pixels than it adds; tiny images repeat their edge instead.
        small = min(x.shape[2:]) <= before
        wide = functional.pad(
            x, (before, after, before, after), mode="replicate" if small else "reflect"
        )
        around = wide.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return around.flatten(-2).median(-1).values

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) the blurred image itself."""
        return self.images(x, rng)
