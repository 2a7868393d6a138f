"""Only the largest activations of a layer pass (Xiao et al. 2020, arXiv:1905.10510, section 3)."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Wrapping
from robustbench_lite.errors import UnsupportedError

_STEEPNESS = 4.0  # of the attacker's gate, by the deviation of a layer's activations
_TINY = 1e-12


@dataclass(frozen=True)
class KWTA(Wrapping):
    """k winners take all in the place of every ReLU module; the others of the layer become zero.

    Who wins changes in jumps, which leads gradients astray. An adaptive attacker goes back through
    a smooth gate about the least winner (BPDA, Athalye et al. 2018, arXiv:1802.00420, section 4.1).
    The paper trains behind it, as does `rbl train --behind k-wta?ratio=0.1`.

    Args:
        ratio: winners of all activations of a layer; the paper goes from 0.2 down to 0.08.
    """

    ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.2

    def wrap(self, classifier: Classifier) -> Classifier:
        """A copy with the ReLU modules replaced.

        Raises:
            UnsupportedError: it has none.
        """
        changed = copy.deepcopy(classifier)
        holders = [
            (parent, name)
            for parent in changed.modules()
            for name, child in parent.named_children()
            if isinstance(child, nn.ReLU)
        ]
        if not holders:
            raise UnsupportedError(
                f"k-wta takes the place of nn.ReLU modules, and {classifier.name} has none; "
                "leave it out"
            )
        for parent, name in holders:
            winners = _Winners(self.ratio, classifier.naive)
            setattr(parent, name, winners.train(parent.training))
        return changed


class _Winners(nn.Module):
    def __init__(self, ratio: float, naive: bool) -> None:
        super().__init__()
        self.ratio, self.naive = ratio, naive

    def forward(self, x: Tensor) -> Tensor:
        """The winners of each image's activations (N, ...), zero elsewhere."""
        flat = x.flatten(1)
        count = max(1, round(self.ratio * flat.shape[1]))
        ones = [1] * (x.ndim - 1)
        least = flat.detach().topk(count, 1, sorted=False).values.amin(1).reshape(-1, *ones)
        kept = torch.where(x >= least, x, 0)
        if self.training or self.naive or not kept.requires_grad:
            return kept
        spread = flat.detach().std(1).clamp(min=_TINY).reshape(-1, *ones)
        stand_in = x * (_STEEPNESS * (x - least) / spread).sigmoid()
        return stand_in + (kept - stand_in).detach()
