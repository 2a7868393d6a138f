"""MART: misclassification-aware adversarial training (Wang et al., ICLR 2020, rklOg6EFwS)."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from rbl_defenses.adversarial import Adversarial, pgd
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp

_TINY = 1e-12


@dataclass(frozen=True)
class MART(Adversarial):
    """Boosted cross-entropy on the worst image, and divergence where the image itself is unsure.

    Args:
        weight: of the divergence, lambda in the paper; the authors take 5 for a ResNet-18 and 6
            for a WideResNet.
        steps: PGD steps a batch; 10 in the paper.
        step_size: of one step, in units of eps; a quarter in the paper.
    """

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    steps: Annotated[int, Field(ge=1)] = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """PGD on the cross-entropy from a random point."""
        return pgd(model, x, y, threat, rng, [self.step_size] * self.steps)

    def objective(self, model: nn.Module, x: Tensor, adv: Tensor, y: Tensor) -> Tensor:
        """BCE(adv) + weight * KL(image || adv) * (1 - p_y(image)), a mean over the batch."""
        there, here = model(x).log_softmax(1), model(adv).log_softmax(1)
        own = functional.one_hot(y, there.shape[1]).bool()
        rival = here.masked_fill(own, -float("inf")).amax(1).exp()
        boosted = -here[own] - (1 - rival).clamp(min=_TINY).log()
        divergence = functional.kl_div(here, there, log_target=True, reduction="none").sum(1)
        unsure = 1 - there[own].exp()
        each: Tensor = boosted + self.weight * divergence * unsure
        return each.mean()
