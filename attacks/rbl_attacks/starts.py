"""Where attacks that see labels only start: at an image that is fooled already."""

from functools import cache

import torch
from torch import Tensor

from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError, UnsupportedError
from robustbench_lite.oracle import Oracle
from robustbench_lite.registry import load_data
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp


def starting_point(oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, examples: str) -> Tensor:
    """(N, C, H, W): uniform noise or, with a targeted goal, an image of the class to reach.

    Args:
        oracle: tells whether the goal is targeted.
        x: (N, C, H, W) the images.
        y: (N,) the class to leave or to reach.
        rng: draws.
        examples: the data set that images of a class are taken from.

    Raises:
        UnsupportedError: the goal is targeted and there are no examples.
        InputError: the examples have another shape, or none of the class.
    """
    if not oracle.targeted:
        return rng.uniform(*x.shape[1:]).to(x.dtype)
    if not examples:
        raise UnsupportedError(
            "a targeted attack that sees labels only starts at an image of the class to reach; "
            "name a data set that has some: --set examples=mnist5k"
        )
    data = _loaded(examples)
    if data.x.shape[1:] != x.shape[1:]:
        raise InputError(
            f"examples {examples!r} have shape {tuple(data.x.shape[1:])}, the images "
            f"{tuple(x.shape[1:])}; name a data set like the one that is attacked"
        )
    chosen = []
    for label, draw in zip(y.tolist(), rng.integers(2**31).tolist(), strict=True):
        of_class = (data.y == label).nonzero().flatten()
        if not len(of_class):
            raise InputError(f"examples {examples!r} have no image of class {label}; name others")
        chosen.append(int(of_class[draw % len(of_class)]))
    return data.x[torch.tensor(chosen)].to(x)


@cache
def _loaded(name: str) -> Dataset:
    return load_data(name)
