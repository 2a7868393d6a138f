"""Learning from captions (Radford et al. 2021, arXiv:2103.00020, section 2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Training
from robustbench_lite.errors import InputError
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


@runtime_checkable
class Captioned(Protocol):
    """A module that compares images with captions."""

    def alike(self, x: Tensor, captions: Sequence[str]) -> Tensor:
        """(N, M) how alike images (N, C, H, W) and M captions are."""

    def captions(self, y: Tensor, rng: Rng) -> list[str]:
        """(N,) of each label a random caption that is true of it."""

    def true_of(self, captions: Sequence[str], y: Tensor) -> Tensor:
        """(N, M) bool: which captions are true of which labels."""


@dataclass(frozen=True)
class Contrastive(Training):
    """Every image finds its captions in the batch, every caption its images.

    Captions that are true of several images share them (Yang et al. 2022, arXiv:2204.03610,
    section 3.2).
    """

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The mean of the two cross-entropies."""
        module = model.model if type(model) is Classifier else None
        if not isinstance(module, Captioned):
            raise InputError("contrastive learns from captions; train an architecture such as clip")
        assert isinstance(model, Classifier)
        captions = list(dict.fromkeys(module.captions(y, rng)))
        alike = module.alike(x * model.scale + model.shift, captions)
        true = module.true_of(captions, y).float()
        of_images = (true / true.sum(1, keepdim=True) * alike.log_softmax(1)).sum(1)
        of_captions = (true / true.sum(0, keepdim=True) * alike.log_softmax(0)).sum(0)
        return -(of_images.mean() + of_captions.mean()) / 2
