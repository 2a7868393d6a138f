"""What a model would be asked if its images were prepared in another way."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier

_NORMALISATIONS = {
    "none": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5,0.5,0.5/0.5,0.5,0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0,0,0/0.0039216,0.0039216,0.0039216": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "0.5/0.5": ((0.5,), (0.5,)),
    "0.1307/0.3081": ((0.1307,), (0.3081,)),
    "0/0.0039216": ((0.0,), (1 / 255,)),
}


def prepared_otherwise(
    classifier: Classifier, x: Tensor
) -> Iterator[tuple[str, Classifier, Tensor]]:
    """Ways in which images are often prepared by mistake, or should have been.

    Args:
        classifier: which one.
        x: (N, C, H, W) images in [0, 1].

    Yields:
        What to call it, whom to ask and about which images: either the classifier with another
        normalisation, or images that are turned round.
    """
    channels = x.shape[1]
    for name, (mean, std) in _NORMALISATIONS.items():
        if name == "none" or len(mean) == channels:
            yield f"--normalize {name}", _normalised(classifier, mean, std), x
    if channels == 3:
        yield "red and blue exchanged", classifier, x.flip(1)
    if x.shape[2] == x.shape[3]:
        yield "rows and columns exchanged", classifier, x.transpose(2, 3).contiguous()
    yield "dark and light exchanged", classifier, 1 - x


def _normalised(
    classifier: Classifier, mean: tuple[float, ...], std: tuple[float, ...]
) -> Classifier:
    """The same model behind another normalisation."""
    changed = copy.copy(classifier)
    changed._buffers = dict(classifier._buffers)
    spread = torch.tensor(std, device=classifier.device).reshape(-1, 1, 1)
    changed.scale = 1 / spread
    changed.shift = -torch.tensor(mean, device=classifier.device).reshape(-1, 1, 1) / spread
    changed.plain = False
    return changed
