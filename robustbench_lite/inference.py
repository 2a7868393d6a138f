"""Logits of many images, asked of the original model in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.engine import Settings
from robustbench_lite.errors import InputError, WrongModelError


def predict(classifier: Classifier, x: Tensor, settings: Settings) -> Tensor:
    """(N, K) logits on the CPU, in batches; padded to a fixed width where `exact` asks for it."""
    parts = []
    with torch.no_grad():
        for first in range(0, len(x), settings.width):
            chunk = x[first : first + settings.width]
            rows = torch.arange(settings.width if settings.exact else len(chunk))
            padded = chunk[rows.clamp(max=len(chunk) - 1)].to(settings.device)
            parts.append(_ask(classifier, padded)[: len(chunk)].cpu())
    return torch.cat(parts)


def _ask(classifier: Classifier, x: Tensor) -> Tensor:
    try:
        return classifier(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped
    except WrongModelError:
        raise
    except RuntimeError as error:
        cause = str(error).splitlines()[0]
        raise InputError(
            f"model {classifier.name!r} cannot take images of shape {tuple(x.shape[1:])} "
            f"({cause}); check that model and data belong together"
        ) from error
