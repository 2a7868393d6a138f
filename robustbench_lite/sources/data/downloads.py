"""Data sets that torchvision downloads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from robustbench_lite.data import Dataset, Split, from_arrays
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import no_settings

_DOWNLOADS = Path("~/.cache/robustbench-lite").expanduser()


def torchvision(split: Split, argument: str, settings: Mapping[str, str]) -> Dataset:
    """CIFAR10, CIFAR100, MNIST, FashionMNIST or KMNIST, downloaded once by torchvision."""
    no_settings("torchvision", settings)
    from torchvision import datasets

    known = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST")
    if argument not in known:
        raise InputError(
            f"data 'torchvision:{argument}' is unknown; choose from {', '.join(known)}"
        )
    try:
        source = getattr(datasets, argument)(_DOWNLOADS, train=split is Split.TRAIN, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"torchvision:{argument} cannot be downloaded ({error}); "
            "go online once, or give the images as npz:PATH"
        ) from error
    return Dataset(
        *_tensors(np.asarray(source.data), np.asarray(source.targets), argument),
        f"torchvision:{argument}",
        tuple(source.classes),
    )


def _tensors(x: np.ndarray, y: np.ndarray, where: str) -> tuple[Tensor, Tensor]:
    data = from_arrays(x, y, where, where)
    return data.x, data.y
