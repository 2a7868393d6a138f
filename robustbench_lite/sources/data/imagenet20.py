"""Twenty photographs of ImageNet that come in a Python package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from robustbench_lite.data import Split
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import no_settings
from robustbench_lite.stream import Stream

_IMAGES = 20


def imagenet20(split: Split, argument: str, settings: Mapping[str, str]) -> Stream:
    """The 20 photographs of ImageNet that foolbox carries: enough for a look, not for a claim."""
    no_settings("imagenet20", settings)
    if argument:
        raise InputError(f"data 'imagenet20:{argument}' takes no argument; write imagenet20")
    if split is Split.TRAIN:
        raise InputError(
            "data 'imagenet20' is for measuring only; train on folder:PATH or npz:PATH"
        )
    found = find_spec("foolbox")  # which finds the package without running it
    if found is None:
        raise InputError(
            "data 'imagenet20' needs foolbox, whose package holds the photographs; "
            "install it with pip install 'robustbench-lite[imagenet-demo]'"
        )
    folders = found.submodule_search_locations or ()
    files = sorted(f for folder in folders for f in Path(folder, "data").glob("imagenet_*.jpg"))
    if len(files) != _IMAGES:
        raise InputError(
            f"the package foolbox holds {len(files)} photographs of ImageNet, not {_IMAGES}; "
            "install another version of it, as foolbox==3.3.4"
        )
    from torchvision.models import ResNet18_Weights

    labels = [int(file.stem.rpartition("_")[2]) for file in files]

    def read(i: int) -> tuple[Image.Image, int]:
        with Image.open(files[i]) as image:
            return image.convert("RGB"), labels[i]

    classes = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return Stream("imagenet20", [file.name for file in files], read, labels, classes)
