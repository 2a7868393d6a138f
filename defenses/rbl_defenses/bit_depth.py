"""Fewer grey levels (Xu et al. 2018, arXiv:1704.01155, section III.A)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.defense import Transform
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class BitDepth(Transform):
    """Each pixel rounded to one of 2^bits levels.

    The gradient is zero almost everywhere; an adaptive attacker takes the identity's (BPDA).

    Args:
        bits: a channel; the paper takes 1 for MNIST and 4 or 5 for CIFAR-10.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 3

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) in steps of 1 / (2^bits - 1)."""
        levels = 2**self.bits - 1
        rounded: Tensor = torch.round(x * levels) / levels
        return rounded
