"""Nets of timm, with its weights or the user's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
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
from robustbench_lite.weights import load_into

_TIMM_SETTINGS = ("num_classes", "in_chans", "img_size")


def timm(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """Any net of timm, as timm:resnet18.a1_in1k.

    What follows the dot names pretrained weights, which timm downloads. Without it, --weights FILE
    gives the weights and --num-classes the number of outputs; an untrained net is
    timm:resnet18?random=yes. With both, the dot tells the preprocessing and FILE has the weights.

    Mean, standard deviation, image size and crop are those of timm. Settings: in_chans=1 (channels
    of the images) and img_size=32 (rows and columns, for nets that are built for a size).
    """
    spec = f"timm:{argument}"
    checked_settings(spec, settings, ("weights", "random", "in_chans", "img_size"))
    try:
        library: Any = import_module("timm")
    except ImportError:
        raise InputError(
            f"model {spec!r} needs timm; install it with pip install 'robustbench-lite[timm]'"
        ) from None
    name, _, tag = argument.partition(".")
    if not library.is_model(name):
        raise unknown("net of timm", name, library.list_models())
    own = (n.partition(".") for n in library.list_pretrained(f"{name}*"))
    tags = [t for net, _, t in own if net == name]
    if tag and tag not in tags:
        raise unknown(f"set of weights of timm:{name}", tag, tags or ("none",))
    example = f"timm:{name}.{tags[0]}" if tags else "timm:resnet18.a1_in1k"
    file = weights_file(spec, settings, published=bool(tag), example=example)
    if tag and file is None:
        wanted = whole_number(spec, settings, "num_classes")
        check_outputs(spec, wanted, library.get_pretrained_cfg(argument).num_classes)
    module = timm_built(spec, argument, settings, pretrained=bool(tag) and file is None)
    if file is not None:
        load_into(module, file)
    drawn = not tag and file is None
    return made(spec, module, settings, timm_native(module, settings, spec, drawn=drawn, tag=tag))


def timm_built(spec: str, name: str, settings: Mapping[str, str], *, pretrained: bool) -> nn.Module:
    """The net that timm calls `name`, or that lies in a folder, as `local-dir:PATH`.

    Raises:
        InputError: it cannot be built with these settings, or not be downloaded.
    """
    library: Any = import_module("timm")
    asked = {key: whole_number(spec, settings, key) for key in _TIMM_SETTINGS}
    sizes = {key: number for key, number in asked.items() if number}
    try:
        with seeded():
            module: nn.Module = library.create_model(name, pretrained=pretrained, **sizes)
    except OSError as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"the weights of model {spec!r} cannot be downloaded ({cause}); go online once, "
            "or give a file that you have with --weights FILE"
        ) from error
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        cause = " ".join(str(error).split())
        told = ", ".join(f"{key}={number}" for key, number in sizes.items()) or "its own settings"
        raise InputError(
            f"timm cannot build model {spec!r} with {told} ({cause}); change these settings"
        ) from error
    return module


def timm_native(
    module: Any, settings: Mapping[str, str], spec: str, *, drawn: bool, tag: str
) -> Native:
    """What timm says of a net that it built.

    Args:
        module: timm's net.
        settings: those of the user.
        spec: what the user wrote.
        drawn: its weights are random.
        tag: which weights it is described for; classes have names, and images a size, only then.
    """
    config = module.pretrained_cfg
    channels, rows, columns = config["input_size"]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    asked = whole_number(spec, settings, "in_chans")
    if asked not in (0, channels):  # timm adds up or repeats the first filters
        channels = asked
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    square = rows if rows == columns and (tag or config.get("fixed_input_size")) else 0
    cubic = config.get("interpolation") != "bilinear"
    classes = int(module.num_classes)
    return Native(
        mean=mean,
        std=std,
        size=whole_number(spec, settings, "img_size") or square,
        channels=channels,
        classes=classes,
        names=_timm_names(config, classes) if tag else (),
        crop=float(config.get("crop_pct") or 1.0),
        interpolation="bicubic" if cubic else "bilinear",
        summary=RANDOM if drawn else "",
    )


def _timm_names(config: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Of the classes, where the net says them or they are those of ImageNet."""
    library: Any = import_module("timm.data")
    own, told = config.get("label_names"), config.get("label_descriptions") or {}
    if own and len(own) == classes:
        return tuple(str(told.get(name, name)) for name in own)
    subset = library.infer_imagenet_subset(dict(config))
    if subset is None or config.get("num_classes") != classes:
        return ()
    info = library.ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(classes))
