"""Adversarial training (Madry et al. 2018, arXiv:1706.06083)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rbl_defenses.adversarial import Adversarial, pgd
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class PGDAT(Adversarial):
    """Cross-entropy on the worst images that a short PGD finds (Madry et al. 2018, section 2.1).

    Args:
        steps: PGD steps a batch; the paper's CIFAR-10 figure is 7.
        step_size: of one step, in units of eps.
        smoothing: label smoothing of the outer loss.
    """

    steps: Annotated[int, Field(ge=1)] = 7
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """PGD on the cross-entropy from a random point."""
        return pgd(model, x, y, threat, rng, [self.step_size] * self.steps)

    def objective(self, model: nn.Module, x: Tensor, adv: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy at what was found."""
        return functional.cross_entropy(model(adv), y, label_smoothing=self.smoothing)
