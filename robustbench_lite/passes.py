"""Passes through a classifier: cut into batches, padded in exact mode, averaged under EOT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError


@dataclass(frozen=True)
class Passes:
    """How a classifier is asked.

    Attributes:
        classifier: who answers.
        width: images a call at the most.
        exact: pad every call to `width`, so that an answer is equal bit by bit in any company.
        eot: passes that an answer is averaged over (Athalye et al. 2018, arXiv:1707.07397).
    """

    classifier: Classifier
    width: int = 256
    exact: bool = False
    eot: int = 1

    def logits(self, images: Tensor) -> Tensor:
        """(M, K) logits of images (M, C, H, W), without gradients."""
        with torch.no_grad():
            return self.answers(images)

    def answers(self, images: Tensor) -> Tensor:
        """(M, K) logits of images (M, C, H, W); gradients flow where torch is told to record."""
        logits = self._call(images)
        for _ in range(self.eot - 1):
            logits = logits + self._call(images)
        return logits / self.eot

    def slopes(
        self, images: Tensor, climb: Callable[[Tensor], list[Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Logits (M, K) of images (M, C, H, W), and gradients (M, R, C, H, W).

        Args:
            images: where.
            climb: from logits to R tensors; of the sum of each the gradient is taken.

        Raises:
            UnsupportedError: the classifier has no gradient.
        """
        logits, slopes = self._slopes_once(images, climb)
        for _ in range(self.eot - 1):
            more = self._slopes_once(images, climb)
            logits, slopes = logits + more[0], slopes + more[1]
        return logits / self.eot, slopes / self.eot

    def _slopes_once(
        self, images: Tensor, climb: Callable[[Tensor], list[Tensor]]
    ) -> tuple[Tensor, Tensor]:
        leaf = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._call(leaf)
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

    def _call(self, images: Tensor) -> Tensor:
        if not self.exact and len(images) <= self.width:
            return self.classifier(images)  # type: ignore[no-any-return]  # nn.Module.__call__
        parts = []
        for part in torch.split(images, self.width):
            missing = self.width - len(part) if self.exact else 0
            full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
            parts.append(self.classifier(full)[: len(part)])
        return torch.cat(parts)
