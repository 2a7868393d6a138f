"""Training on noisy images (Cohen et al. 2019, arXiv:1902.02918, section 3.3)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class GaussianAugment(Training):
    """Cross-entropy under Gaussian noise, so that the net can be smoothed with as much of it.

    Args:
        sigma: standard deviation of the noise; pixels are not clipped afterwards.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The mean cross-entropy on noisy images."""
        return functional.cross_entropy(model(x + self.sigma * rng.normal(*x.shape[1:])), y)
