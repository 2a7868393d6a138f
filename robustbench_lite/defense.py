"""The contracts of a defense: one that is trained in, or one that wraps a trained classifier."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.defended import Defended
from robustbench_lite.rng import Rng
from robustbench_lite.settings import check_fields
from robustbench_lite.threat import Lp


@dataclass(frozen=True)
class Defense(ABC):  # noqa: B024 - what is abstract depends on where the defense acts
    """A frozen dataclass whose fields are hyper-parameters.

    Attributes:
        randomized: its classifier is random, so attackers average over passes (EOT).
    """

    randomized: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Training(Defense):
    """A defense that is trained in: what a training step minimises.

    Attributes:
        collapses: it can overfit all at once, so samples are held out to notice.
    """

    collapses: ClassVar[bool] = False

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The scalar to minimise on one batch.

        Args:
            model: maps images (N, C, H, W) in [0, 1] to logits (N, K), in training mode.
            x: (N, C, H, W) augmented images.
            y: (N,) labels.
            threat: what to become robust against, at the present point of the warm-up.
            rng: random numbers keyed by sample and epoch.
        """

    def losses(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng
    ) -> Iterator[Tensor]:
        """What to minimise on one batch, one after the other; `loss` only, if not overridden.

        When the next one is asked for, the trainer has gone back through the last and has moved
        the weights.
        """
        yield self.loss(model, x, y, threat, rng)

    def unaware(self, classifier: Classifier) -> Classifier:
        """The trained classifier with the gradient that an attacker sees who knows nothing.

        The classifier itself, if not overridden: nothing is hidden.
        """
        return classifier


@dataclass(frozen=True)
class Wrapping(Defense):
    """A defense at inference time: it turns a classifier into another one.

    A net can be trained behind it (`rbl train --behind`) where the other classifier holds the same
    parameters.
    """

    def channels(self, channels: int) -> int:
        """Channels of what the net sees, of images with `channels`; as many, if not overridden."""
        return channels

    @abstractmethod
    def wrap(self, classifier: Classifier) -> Classifier:
        """The defended classifier."""


@dataclass(frozen=True)
class Transform(Wrapping):
    """A defense that changes the image before the classifier looks."""

    @abstractmethod
    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) in [0, 1]: what the classifier sees instead of `x`.

        `rng` is keyed by sample and question; only a `randomized` transform draws from it.
        """

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) what the adaptive attacker differentiates in place of `images`.

        The image itself, if not overridden (BPDA); `images` where that has a gradient.
        """
        return x

    def wrap(self, classifier: Classifier) -> Classifier:
        """The classifier behind this change, after those that it has already."""
        return Defended(classifier, self)
