"""Do the gradients of a classifier tell where its logits rise?

The margin is differenced along random directions and compared with what its gradient foretells.
Attacks that follow gradients say little of a model for which the two have nothing to do with each
other (Athalye et al. 2018, arXiv:1802.00420, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.evidence import Health
from robustbench_lite.loss import margin
from robustbench_lite.passes import Passes
from robustbench_lite.rng import Rng

IMAGES = 8
_DIRECTIONS = 8
_NOISE = 4 / 255
_LENGTH = 0.5 / 255  # of a difference, each way: the margin of a deep net bends soon


def health_of(passes: Passes, x: Tensor, keys: Tensor) -> Health:
    """Probe the gradients near images; 17 forward passes and a backward pass each.

    Args:
        passes: of the classifier.
        x: (N, C, H, W) a few images, at least one.
        keys: (N,) int64 random keys of the images.
    """
    shape = x.shape[1:]
    rng = Rng(keys.to(x.device))
    noise = _NOISE * (2 * rng.uniform(*shape) - 1)
    base = (x + noise).clamp(_LENGTH, 1 - _LENGTH)
    labels: list[Tensor] = []

    def lead(logits: Tensor) -> list[Tensor]:
        labels.append(logits.detach().argmax(1))
        return [margin(logits, labels[0])]

    _, slopes = passes.slopes(base, lead)
    steps = _LENGTH * rng.signs(_DIRECTIONS, *shape)
    foretold = 2 * (slopes * steps).flatten(2).sum(2)
    asked = torch.cat([base[:, None] + steps, base[:, None] - steps]).flatten(0, 1)
    margins = margin(passes.logits(asked), labels[0].repeat_interleave(_DIRECTIONS).repeat(2))
    ahead, behind = margins.reshape(2, len(x), _DIRECTIONS)
    return Health(
        agreement=float(_cosines(ahead - behind, foretold).mean()),
        flat=float((slopes == 0).flatten(1).all(1).float().mean()),
        images=len(x),
    )


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(N,) cosine of each row, 0 where one of them is zero or not finite."""
    a, b = (v / v.abs().amax(1, keepdim=True).clamp(min=1e-30) for v in (a.double(), b.double()))
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-30)
    return torch.nan_to_num(cosine, 0.0, 0.0, 0.0)
