"""When a binary search for the weight of the margin no longer shrinks the example."""

import torch
from torch import Tensor

from robustbench_lite.geometry import Norm, flat_norm

_GAIN = 0.05  # a search that shrinks the example by less counts as fruitless


def after_search(
    x: Tensor, best: Tensor, norm: Norm, size: Tensor, stale: Tensor
) -> tuple[Tensor, Tensor]:
    """The size of the best example now, and how many searches in a row were fruitless.

    Args:
        x: (N, ...) the images.
        best: (N, ...) each slot's best example, `x` where there is none.
        norm: of the size.
        size: (N,) the size before the search, infinite where there was none.
        stale: (N,) fruitless searches in a row before it.
    """
    now = flat_norm(best - x, norm)
    now = torch.where(now > 0, now, torch.inf)
    fresh = now.isinf() | (now < (1 - _GAIN) * size)
    return now, torch.where(fresh, 0, stale + 1)
