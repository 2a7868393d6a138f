"""Adversarial training with one step (Wong et al. 2020, arXiv:2001.03994)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rbl_defenses.adversarial import Adversarial, pgd
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class FastAT(Adversarial):
    """Cross-entropy after one step from a random point (Wong et al. 2020, Algorithm 3: FGSM-RS).

    It may overfit to that step all at once (section 5 there), so 500 samples are held out and
    attacked with several steps after each epoch, and the best epoch is kept.

    Args:
        step_size: in units of eps; 1.25 in the paper.
        smoothing: label smoothing of the outer loss.
    """

    collapses: ClassVar[bool] = True

    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.25
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """One step along the steepest ascent of the cross-entropy."""
        return pgd(model, x, y, threat, rng, [self.step_size])

    def objective(self, model: nn.Module, x: Tensor, adv: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy at what was found."""
        return functional.cross_entropy(model(adv), y, label_smoothing=self.smoothing)
