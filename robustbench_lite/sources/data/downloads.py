"""Data sets by their names at torchvision, fetched from where their makers keep them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbench_lite.data import Dataset, Split, from_arrays
from robustbench_lite.downloads import extracted, fetched
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import no_settings

_DOWNLOADS = Path("~/.cache/robustbench-lite").expanduser()
_PIXELS = 32 * 32 * 3  # of a CIFAR image


@dataclass(frozen=True)
class Gzipped:
    """Four files as MNIST has them: images and labels of either split.

    Attributes:
        mirrors: addresses of folders, tried in this order.
        digests: sha256 of the training images, their labels, the test images, their labels.
        folder: where the files are kept.
        classes: class names.
    """

    mirrors: tuple[str, ...]
    digests: tuple[str, str, str, str]
    folder: Path
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Batches:
    """A tar file of records as CIFAR has them: labels of a byte each, then 3,072 pixels.

    Attributes:
        url: of the archive.
        digest: its sha256.
        folder: where it is kept, and where its content goes.
        inside: the folder in the archive.
        train: files with the training split, in order.
        test: the file with the test split.
        names: the file with the class names, a line each.
        labels: bytes before the pixels; the last one is the class.
    """

    url: str
    digest: str
    folder: Path
    inside: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int


_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_OFFERS: Mapping[str, Gzipped | Batches] = {
    "CIFAR10": Batches(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        digest="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder=_DOWNLOADS,
        inside="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
        labels=1,
    ),
    "CIFAR100": Batches(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        digest="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder=_DOWNLOADS,
        inside="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        labels=2,
    ),
    "MNIST": Gzipped(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        digests=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        folder=_DOWNLOADS / "MNIST" / "raw",
        classes=(
            *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
            *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
        ),
    ),
    "FashionMNIST": Gzipped(
        mirrors=(
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        digests=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        folder=_DOWNLOADS / "FashionMNIST" / "raw",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "KMNIST": Gzipped(
        mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        digests=(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        folder=_DOWNLOADS / "KMNIST" / "raw",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}


def torchvision(split: Split, argument: str, settings: Mapping[str, str]) -> Dataset:
    """CIFAR10, CIFAR100, MNIST, FashionMNIST or KMNIST, downloaded once, checked by their sha256.

    They are kept in ~/.cache/robustbench-lite. No pickle is read.
    """
    no_settings("torchvision", settings)
    if argument not in _OFFERS:
        raise InputError(
            f"data 'torchvision:{argument}' is unknown; choose from {', '.join(_OFFERS)}"
        )
    name = f"torchvision:{argument}"
    try:
        return read(_OFFERS[argument], split, name)
    except InputError as error:
        raise InputError(
            f"{name} cannot be downloaded ({error}); go online once, or give the images as npz:PATH"
        ) from error


def read(offer: Gzipped | Batches, split: Split, name: str) -> Dataset:
    """A data set, fetched if it is not there yet.

    Raises:
        InputError: it cannot be fetched, or is not what it should be.
    """
    if isinstance(offer, Gzipped):
        x, y, classes = (*_gzipped(offer, split), offer.classes)
    else:
        x, y, classes = _batches(offer, split)
    data = from_arrays(x, y, name, name)
    return Dataset(data.x, data.y, name, classes)


def _gzipped(offer: Gzipped, split: Split) -> tuple[np.ndarray, np.ndarray]:
    first = 0 if split is Split.TRAIN else 2
    images, labels = (
        _numbers(_from_a_mirror(offer, _FILES[i], offer.digests[i])) for i in (first, first + 1)
    )
    return images, labels


def _from_a_mirror(offer: Gzipped, file: str, digest: str) -> Path:
    reasons = []
    for mirror in offer.mirrors:
        try:
            return fetched(f"{mirror}{file}-ubyte.gz", digest, offer.folder)
        except InputError as error:
            reasons.append(str(error))
    raise InputError("; ".join(reasons))


def _numbers(path: Path) -> np.ndarray:
    """The bytes of a gzipped IDX file, in the shape that it begins with."""
    with gzip.open(path) as file:
        content = file.read()
    count = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">u4", count, 4).astype(int)
    flat = np.frombuffer(content, np.uint8, offset=4 + 4 * count)
    if not count or flat.size != shape.prod():
        raise InputError(f"{path} is no IDX file of bytes; remove it, so that it is fetched anew")
    return flat.reshape(shape).copy()  # torch wants memory that it may write to


def _batches(offer: Batches, split: Split) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    archive = fetched(offer.url, offer.digest, offer.folder)
    folder = extracted(archive, offer.folder / archive.name.partition(".")[0]) / offer.inside
    files = offer.train if split is Split.TRAIN else (offer.test,)
    try:
        parts = [np.fromfile(folder / file, np.uint8) for file in files]
        rows = np.concatenate(parts).reshape(-1, offer.labels + _PIXELS)
        names = (folder / offer.names).read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} is not what the archive holds ({error}); remove {folder.parent}"
        ) from error
    x = rows[:, offer.labels :].reshape(-1, 3, 32, 32)
    y = rows[:, offer.labels - 1].astype(np.int64)
    return x, y, tuple(filter(None, map(str.strip, names)))
