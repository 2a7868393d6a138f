"""Nets that torchvision and RobustBench build, with their weights or the user's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from torch import nn

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.sources.models.made import (
    RANDOM,
    Native,
    check_outputs,
    checked_settings,
    made,
    seeded,
    weights_file,
    whole_number,
)
from robustbench_lite.threat import Norm
from robustbench_lite.weights import load_into

_ROBUSTBENCH = Path("~/.cache/robustbench-lite/robustbench").expanduser()
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
_EPS = {
    ("cifar10", "Linf"): (Norm.LINF, 8 / 255),
    ("cifar10", "L2"): (Norm.L2, 0.5),
    ("cifar100", "Linf"): (Norm.LINF, 8 / 255),
    ("cifar100", "L2"): (Norm.L2, 0.5),
    ("imagenet", "Linf"): (Norm.LINF, 4 / 255),
    ("imagenet", "L2"): (Norm.L2, 3.0),
}


def torchvision(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """Any classification net of torchvision, as torchvision:resnet18@DEFAULT.

    Behind the @ stands the name of the weights, which torchvision downloads; DEFAULT are its best.
    Mean, standard deviation, image size and class names are those of the weights.

    Without @, --weights FILE gives the weights and --num-classes the number of outputs; inputs are
    normalised as for torchvision's default weights, unless --normalize says otherwise. An untrained
    net is torchvision:resnet18?random=yes.

    With both, @ tells the preprocessing and the classes, and FILE has the weights.
    """
    spec = f"torchvision:{argument}"
    checked_settings(spec, settings, ("weights", "random"))
    from torchvision import models

    name, at, wanted = argument.partition("@")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("classification net of torchvision", name, known)
    offered = models.get_model_weights(name).__members__
    if at and wanted not in offered:
        raise unknown(f"set of weights of torchvision:{name}", wanted, offered)
    file = weights_file(spec, settings, published=bool(at), example=f"torchvision:{name}@DEFAULT")
    chosen = offered[wanted or "DEFAULT"]
    names = tuple(chosen.meta["categories"]) if at else ()
    classes = whole_number(spec, settings, "num_classes") or len(names) or 1000
    if at and file is None:
        check_outputs(spec, classes, len(names))
        module = _torchvision_published(spec, name, chosen)
    else:
        module = _torchvision_built(spec, name, classes, as_published=bool(at), drawn=file is None)
    if file is not None:
        load_into(module, file)
    transforms = chosen.transforms()
    native = Native(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=transforms.crop_size[0] if at else 0,
        channels=3,
        classes=classes,
        names=names if len(names) == classes else (),
        crop=min(1.0, transforms.crop_size[0] / transforms.resize_size[0]),
        interpolation=transforms.interpolation.value,
        summary="" if at or file is not None else RANDOM,
    )
    return made(spec, module, settings, native)


def _torchvision_published(spec: str, name: str, weights: Any) -> nn.Module:
    from torchvision import models

    try:
        module: nn.Module = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:  # no network; a download that broke off
        raise InputError(
            f"the weights of model {spec!r} cannot be downloaded ({error}); go online once, "
            f"or give a file that you have with --weights FILE"
        ) from error
    return module


def _torchvision_built(
    spec: str, name: str, classes: int, *, as_published: bool, drawn: bool
) -> nn.Module:
    from torchvision import models

    more: dict[str, bool] = {}
    if name in ("googlenet", "inception_v3"):  # their published weights expect other inputs
        more = {"transform_input": as_published, "init_weights": drawn}
    try:
        with seeded():
            module: nn.Module = models.get_model(name, weights=None, num_classes=classes, **more)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"torchvision cannot build model {spec!r} with {classes} outputs ({error}); "
            "choose another --num-classes"
        ) from error
    return module


def robustbench(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A net of RobustBench's model zoo, as robustbench:Carmon2019Unlabeled@Linf.

    Behind the @ stands the threat model: Linf (if it is left out), L2, corruptions or
    corruptions_3d. The setting data=cifar10, cifar100 or imagenet says which of its zoos it is
    from, cifar10 if it is left out. The package robustbench downloads the weights.
    """
    spec = f"robustbench:{argument}"
    checked_settings(spec, settings, ("data",))
    name, _, threat = argument.partition("@")
    threat = threat or "Linf"
    data = settings.get("data", "cifar10")
    threats = ("Linf", "L2", "corruptions", "corruptions_3d")
    if threat not in threats:
        raise unknown("threat model of robustbench", threat, threats)
    if data not in _CLASSES:
        raise unknown("zoo of robustbench", data, _CLASSES)
    try:
        from robustbench import utils
    except ImportError as error:
        raise InputError(
            f"model {spec!r} needs the package robustbench ({error}); install it with "
            "pip install robustbench"
        ) from None
    try:
        with redirect_stdout(sys.stderr), seeded():  # it prints what it downloads
            module = utils.load_model(
                model_name=name, model_dir=_ROBUSTBENCH, dataset=data, threat_model=threat
            )
    except KeyError as error:
        raise InputError(
            f"robustbench has no model {name!r} for data={data} and {threat} ({error}); "
            "see its list at https://robustbench.github.io"
        ) from error
    except Exception as error:  # downloads, checkpoints and timm fail in ways of their own
        cause = " ".join(str(error).split())
        raise InputError(
            f"robustbench cannot load model {spec!r} ({type(error).__name__}: {cause}); "
            "go online once, and see that its version fits torch's"
        ) from error
    photographs = data == "imagenet"
    native = Native(
        size=224 if photographs else 32,
        channels=3,
        classes=_CLASSES[data],
        crop=0.875 if photographs else 1.0,
        test_data="" if photographs else f"torchvision:{data.upper()}",
    )
    classifier, profile = made(spec, module, settings, native)
    norm, eps = _EPS.get((data, threat), (profile.norm, profile.eps))
    return classifier, profile.model_copy(update={"norm": norm, "eps": eps})
