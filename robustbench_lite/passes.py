"""Passes through a classifier: cut into batches, padded in exact mode, averaged under EOT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.rng import Rng
from robustbench_lite.running import Precision


@dataclass(frozen=True)
class Passes:
    """How a classifier is asked.

    Attributes:
        classifier: who answers.
        width: images a call at the most.
        exact: pad every call to `width`, so that an answer is equal bit by bit in any company.
        eot: passes that an answer is averaged over (Athalye et al. 2018, arXiv:1707.07397).
        precision: in which the classifier computes.
    """

    classifier: Classifier
    width: int = 256
    exact: bool = False
    eot: int = 1
    precision: Precision = Precision.FLOAT32

    def logits(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """(M, K) logits of images (M, C, H, W), without gradients.

        `keys` (M,) int64 decide the random numbers of a randomized classifier.
        """
        with torch.no_grad():
            return self.answers(images, keys)

    def answers(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """(M, K) logits of images (M, C, H, W); gradients flow where torch is told to record."""
        logits = self._call(images, keys, 0)
        for number in range(1, self.eot):
            logits = logits + self._call(images, keys, number)
        return logits / self.eot

    def slopes(
        self,
        images: Tensor,
        climb: Callable[[Tensor], list[Tensor]],
        keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (M, K) of images (M, C, H, W), and gradients (M, R, C, H, W).

        Args:
            images: where.
            climb: from logits to R tensors; of the sum of each the gradient is taken.
            keys: (M,) int64 for a randomized classifier, as for `logits`.

        Raises:
            UnsupportedError: the classifier has no gradient.
        """
        logits, slopes = self._slopes_once(images, climb, keys, 0)
        for number in range(1, self.eot):
            more = self._slopes_once(images, climb, keys, number)
            logits, slopes = logits + more[0], slopes + more[1]
        return logits / self.eot, slopes / self.eot

    def _slopes_once(
        self,
        images: Tensor,
        climb: Callable[[Tensor], list[Tensor]],
        keys: Tensor | None,
        number: int,
    ) -> tuple[Tensor, Tensor]:
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._call(leaf, keys, number)
            if not logits.requires_grad:
                raise UnsupportedError(
                    f"model {self.classifier.name!r} gives no gradient; wrap it in "
                    "Classifier(access=Access.SCORES) and choose an attack that needs no more"
                )
            sums = [each.sum() for each in climb(logits)]
            slopes = [
                torch.autograd.grad(one, leaf, retain_graph=i + 1 < len(sums))[0]
                for i, one in enumerate(sums)
            ]
        whole = slopes[0][:, None] if len(slopes) == 1 else torch.stack(slopes, 1)
        return logits.detach(), torch.nan_to_num(whole, 0.0, 0.0, 0.0)

    def _call(self, images: Tensor, keys: Tensor | None, number: int) -> Tensor:
        if not self.exact and len(images) <= self.width:
            return self._ask(images, keys, number)
        parts = []
        for first in range(0, len(images), self.width):
            count = min(self.width, len(images) - first)
            rows = torch.arange(self.width if self.exact else count, device=images.device)
            rows = first + rows.clamp(max=count - 1)
            some = None if keys is None else keys[rows]
            parts.append(self._ask(images[rows], some, number)[:count])
        return torch.cat(parts)

    def _ask(self, images: Tensor, keys: Tensor | None, number: int) -> Tensor:
        model = self.classifier
        rng = None
        if keys is not None and model.randomized:
            rng = Rng(keys, torch.full_like(keys, number))
        if self.precision is Precision.FLOAT32:
            return model(images, rng)  # type: ignore[no-any-return]  # nn.Module.__call__
        with torch.autocast(images.device.type, torch.bfloat16):
            return model(images, rng)  # type: ignore[no-any-return]  # nn.Module.__call__
