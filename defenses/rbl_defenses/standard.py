"""Training without a defense: what every other entry is compared with."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class Standard(Training):
    """Cross-entropy on the images as they are.

    Args:
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The mean cross-entropy."""
        return functional.cross_entropy(model(x), y, label_smoothing=self.smoothing)
