"""Logits of many images, asked of the original model in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier, ask_afresh
from robustbench_lite.errors import ModelFailedError, RblError
from robustbench_lite.evidence import Randomness
from robustbench_lite.rng import Rng, key_of, numbered
from robustbench_lite.running import Settings, halved, is_of_memory

_PROBE = 32


@dataclass(frozen=True, eq=False)
class Original:
    """The model itself, asked about samples with random numbers of their own.

    Attributes:
        classifier: who answers.
        keys: (N,) int64, one a sample of the evaluation.
    """

    classifier: Classifier
    keys: Tensor

    def answer(
        self, images: Tensor, rows: Tensor, occasion: str, settings: Settings, number: int = 0
    ) -> Tensor:
        """(M, K) logits of images (M, ...) of the samples `rows` (M,).

        `occasion` and `number` decide the draws of a randomized classifier.
        """
        numbers = torch.full_like(self.keys, key_of(occasion, number))
        keys = numbered(self.keys, numbers)[rows]
        return predict(self.classifier, images, settings, keys)

    def answers(
        self, images: Tensor, rows: Tensor, occasion: str, settings: Settings, numbers: range
    ) -> Iterator[Tensor]:
        """`answer` once for each of the numbers."""
        for number in numbers:
            yield self.answer(images, rows, occasion, settings, number)


def randomness_of(
    classifier: Classifier, x: Tensor, clean: Tensor, settings: Settings
) -> Randomness:
    """Is the classifier random: does it say so, or answer otherwise when asked again?

    One that remembers its answers is asked afresh, and if it is random from then on.

    Args:
        classifier: which one.
        x: (N, C, H, W) images.
        clean: (N, K) what it answered about them.
        settings: how it was asked.
    """
    if classifier.naive:  # who does not know of the defenses does not know that they are random
        return Randomness.NONE
    if classifier.averages:
        return Randomness.AVERAGED
    if classifier.randomized:
        return Randomness.DECLARED
    first = clean[:_PROBE]
    ask_afresh(classifier, True)
    again = predict(classifier, x[:_PROBE], settings)
    both = torch.isfinite(again) & torch.isfinite(first)
    apart = torch.where(both, (again - first).abs(), 0)
    changed = apart > 1e-4 * torch.where(both, first.abs(), 0).max()
    found = bool(changed.any())
    ask_afresh(classifier, found)
    return Randomness.FOUND if found else Randomness.NONE


def predict(
    classifier: Classifier, x: Tensor, settings: Settings, keys: Tensor | None = None
) -> Tensor:
    """(N, K) logits on the CPU, in batches; padded to a fixed width where `exact` asks for it.

    Where memory does not hold such a batch, it is halved. `keys` (N,) int64 decide the random
    numbers of a randomized classifier.
    """
    try:
        return _in_batches(classifier, x, settings, keys)
    except RuntimeError as error:
        return predict(classifier, x, halved(settings, error), keys)


def _in_batches(
    classifier: Classifier, x: Tensor, settings: Settings, keys: Tensor | None
) -> Tensor:
    parts = []
    with torch.no_grad():
        for first in range(0, len(x), settings.width):
            chunk = x[first : first + settings.width]
            rows = torch.arange(settings.width if settings.exact else len(chunk))
            rows = rows.clamp(max=len(chunk) - 1)
            padded = (chunk[rows] if settings.exact else chunk).to(settings.device)
            rng = None
            if keys is not None and classifier.randomized:
                rng = Rng(keys[first + rows].to(settings.device))
            parts.append(_ask(classifier, padded, rng)[: len(chunk)].cpu())
    return torch.cat(parts)


def _ask(classifier: Classifier, x: Tensor, rng: Rng | None) -> Tensor:
    try:
        answer: Tensor = classifier(x) if rng is None else classifier(x, rng)
        return answer
    except RblError:
        raise
    except Exception as error:  # a foreign model may raise anything
        if isinstance(error, RuntimeError) and is_of_memory(error):
            raise
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelFailedError(
            f"model {classifier.name!r} cannot take images of shape {tuple(x.shape[1:])} "
            f"({cause}); check that model and data belong together"
        ) from error
