"""The options that name a model and data, and what they stand for; shared by the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import options
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    import torch

    from robustbench_lite.card import Profile
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset
    from robustbench_lite.stream import Stream

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A registered model, a .safetensors file of rbl train, or SOURCE:NAME, as "
        "timm:resnet18 or net.py:make; defenses may follow: mnist-cnn+jpeg.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Weights for a model from elsewhere: .safetensors or .pt."),
]
NumClasses = Annotated[
    int | None,
    typer.Option("--num-classes", help="Outputs of a model from elsewhere.", min=2),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        help="What the model expects: imagenet, none or MEAN/STD, as 0.5,0.5,0.5/0.2,0.2,0.2.",
        show_default="as the model's maker says",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", help="Resize every image to this inside the model.", min=1),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run the code of a hub's model at a pinned revision."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        help="Data, such as digits, npz:PATH, folder:PATH or csv:PATH; see rbl list data.",
        show_default="the model's",
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option("--class-map", help="JSON or CSV: the model's class of each class of the data."),
]
Indices = Annotated[
    Path | None,
    typer.Option("--indices", help="Only the samples that this file numbers, a line each."),
]
Stratified = Annotated[
    bool,
    typer.Option("--stratified", help="Draw --n in proportion from every class."),
]


def spec_of(
    model: str,
    *,
    weights: Path | None = None,
    num_classes: int | None = None,
    normalize: str | None = None,
    resize: int | None = None,
    trust_remote_code: bool = False,
) -> str:
    """The model's spec with what the options say.

    Raises:
        InputError: the model is not from elsewhere, or says it already.
    """
    given = {
        "weights": None if weights is None else str(weights),
        "num_classes": num_classes,
        "normalize": normalize,
        "resize": resize,
        "trust_remote_code": "yes" if trust_remote_code else None,
    }
    said = {key: str(value) for key, value in given.items() if value is not None}
    if not said:
        return model

    from robustbench_lite.model_specs import with_settings

    return with_settings(model, said)


def model_of(spec: str, device: torch.device, *, naive: bool = False) -> tuple[Classifier, Profile]:
    """The classifier of --model on its device, and its profile.

    Raises:
        InputError: no such model, or its files cannot be used.
    """
    from robustbench_lite.models import load_with_profile

    classifier, profile = load_with_profile(spec, naive=naive)
    return classifier.to(device), profile


def opened(
    spec: str | None,
    profile: Profile,
    names: tuple[str, ...] | None = None,
    *,
    class_map: Path | None = None,
    indices: Path | None = None,
    strictly: bool = True,
) -> Dataset | Stream:
    """All samples of --data, by default the model's test data, with the model's labels.

    Args:
        spec: --data.
        profile: of the model.
        names: of the model's classes, if known.
        class_map: --class-map.
        indices: --indices.
        strictly: refuse labels that the model does not know.

    Raises:
        InputError: no such data, it cannot be read, or the model cannot take its images.
    """
    from robustbench_lite import downloads
    from robustbench_lite.class_names import matched, picked
    from robustbench_lite.cli import progress
    from robustbench_lite.data import Dataset, checked_for
    from robustbench_lite.registry import open_data

    name = spec or profile.test_data
    if not name:
        raise InputError(f"model {profile.name!r} names no test data; give --data")
    with progress.fetching(name) as report, downloads.watched(report):
        data = open_data(name)
    if isinstance(data, Dataset):
        some = matched(data if indices is None else picked(data, indices), names, 0, class_map)
        _check_shape(some, name, profile)
        if strictly and profile.classes:
            checked_for(some, profile.classes)
        return some
    view = (profile.channels, profile.size, profile.crop, profile.interpolation)
    stream = data.seen_as(*view)
    stream = stream if indices is None else picked(stream, indices)
    return matched(stream, names, profile.classes, class_map)


def _check_shape(data: Dataset, name: str, profile: Profile) -> None:
    shape = tuple(data.x.shape[1:])
    wanted = (profile.channels, profile.size, profile.size)
    if any(want and want != has for want, has in zip(wanted, shape, strict=True)):
        told = " x ".join(str(want or "any") for want in wanted)
        raise InputError(
            f"--data {name}: images of shape {shape} do not fit model {profile.name!r}, which "
            f"takes {told}; choose other data or another model"
        )


def data_of(
    spec: str | None, n: int, seed: int, profile: Profile, names: tuple[str, ...] | None = None
) -> Dataset:
    """`n` samples of --data, in memory; raises as `opened` does."""
    from robustbench_lite.data import Dataset

    data = opened(spec, profile, names).sample(options.positive(n, "--n"), seed)
    return data if isinstance(data, Dataset) else data.load()
