"""Thermometer codes for pixels (Buckman et al. 2018, ICLR, section 3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.defense import Transform
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class Thermometer(Transform):
    """Each channel becomes levels - 1 channels: is the pixel above 1/levels, 2/levels, ...?

    A net is trained behind it: `rbl train --behind thermometer?levels=16`. The code has no
    gradient; an adaptive attacker takes that of a ramp about each threshold (BPDA, Athalye et al.
    2018, arXiv:1802.00420, section 5.1, there with ramps on one side).

    Args:
        levels: of the code; 16 in the paper.
        reach: half the width of the attacker's ramps.
    """

    levels: Annotated[int, Field(ge=2, le=256)] = 16
    reach: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2

    def channels(self, channels: int) -> int:
        """Channels of the code of an image with `channels`."""
        return channels * (self.levels - 1)

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C (levels - 1), H, W) of zeros and ones; NaN stays NaN."""
        above = self._above(x)
        return torch.where(above.isnan(), above, (above > 0).to(x.dtype)).flatten(1, 2)

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C (levels - 1), H, W) with a slope within `reach` of each threshold."""
        return (self._above(x) / (2 * self.reach) + 0.5).clamp(0, 1).flatten(1, 2)

    def _above(self, x: Tensor) -> Tensor:
        """(N, C, levels - 1, H, W) how far each pixel is above each threshold."""
        thresholds = torch.arange(1, self.levels, device=x.device) / self.levels
        return x[:, :, None] - thresholds.to(x.dtype).reshape(-1, 1, 1)
