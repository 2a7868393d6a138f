"""Noise on every image before it is classified (Liu et al. 2018, arXiv:1712.00673, on inputs)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from robustbench_lite.defense import Transform
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class GaussianNoise(Transform):
    """Gaussian noise, drawn anew for every look.

    An adaptive attacker averages over draws (EOT, Athalye et al. 2018, arXiv:1802.00420).

    Args:
        sigma: standard deviation; pixels are not clipped afterwards.
    """

    randomized: ClassVar[bool] = True

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W), also outside [0, 1]."""
        return x + self.sigma * rng.normal(*x.shape[1:]).to(x.dtype)

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) the noisy image itself."""
        return self.images(x, rng)
