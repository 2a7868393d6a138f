"""Names and loads attacks, models, data, threats and the rest: through entry points only."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from robustbench_lite.attack import Plan
from robustbench_lite.card import Card, Recipe, read_card
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset, Split
from robustbench_lite.defense import Defense, Wrapping
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.threat import Access, Threat


class Kind(StrEnum):
    """What can be registered; the entry-point group is `robustbench_lite.` and this."""

    ATTACKS = "attacks"
    DEFENSES = "defenses"
    MODELS = "models"
    DATA = "data"
    ARCHITECTURES = "architectures"
    THREATS = "threats"


@cache
def registered(kind: Kind) -> Mapping[str, EntryPoint]:
    """Every registered name of a kind.

    Raises:
        InputError: two distributions claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"robustbench_lite.{kind}"):
        known = found.get(point.name)
        if known is not None and known.value != point.value:
            raise InputError(
                f"{kind}: {point.name!r} is registered by both {known.value} and {point.value}; "
                "uninstall one of the two packages"
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def find(kind: Kind, name: str) -> Any:
    """The object behind a name.

    Raises:
        InputError: nobody registered the name (the message gives the nearest ones), or its
            package cannot be imported.
    """
    points = registered(kind)
    if name not in points:
        raise unknown(str(kind).removesuffix("s"), name, points)
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{kind}: {name!r} ({points[name].value}) cannot be imported: {error}; reinstall it"
        ) from error


def _configured(cls: type, name: str, values: Mapping[str, object]) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise unknown(f"setting of {name!r}", key, known)
    try:
        return cls(**values)
    except (TypeError, InputError) as error:
        raise InputError(f"setting of {name!r}: {error}; see rbl show {name}") from error


def load_attack(name: str, **fields: object) -> Plan:
    """The attack or plan registered under `name`, with some fields set.

    `library:NAME`, as torchattacks:CW, is an attack of another library.

    Raises:
        InputError: no such attack or field, or a value of the wrong type.
    """
    prefix, colon, argument = name.partition(":")
    found = find(Kind.ATTACKS, prefix)
    if isinstance(found, Plan):
        if fields or colon:
            key = next(iter(fields), argument)
            raise InputError(
                f"{prefix!r} is a fixed plan and takes no {key!r}; see rbl show {prefix}"
            )
        return found
    if inspect.isclass(found):
        if colon:
            raise InputError(f"attack {prefix!r} takes nothing after a colon; write {prefix}")
        attack: Plan = _configured(found, name, fields)
        return attack
    library: Callable[[str, Mapping[str, object]], Plan] = found
    if not argument:
        raise InputError(f"{prefix!r} needs the name of one of its attacks; write {prefix}:NAME")
    return library(argument, fields)


def load_threat(name: str, **fields: object) -> Threat:
    """The threat without a norm that is registered under `name`, with some fields set.

    Raises:
        InputError: no such threat or field, or a value of the wrong type.
    """
    threat: Threat = _configured(find(Kind.THREATS, name), name, fields)
    return threat


def load_defense(spec: str, **fields: object) -> Defense:
    """The defense registered under a name, with some fields set, also as `jpeg?quality=50`.

    Raises:
        InputError: no such defense or field, or a value of the wrong type.
    """
    name, _, query = spec.partition("?")
    values = dict(fields)
    for setting in filter(None, query.split("&")):
        key, equals, value = setting.partition("=")
        if not equals or not key or key in values:
            raise InputError(
                f"defense {spec!r}: {setting!r} is not one KEY=VALUE each; "
                f"write it as {name}?key=value&other=value"
            )
        values[key] = value
    defense: Defense = _configured(find(Kind.DEFENSES, name), name, values)
    return defense


def load_data(spec: str, split: Split = Split.TEST) -> Dataset:
    """The data set of a name such as `digits` or `npz:PATH`.

    Raises:
        InputError: no such data, or it cannot be read.
    """
    name, _, argument = spec.partition(":")
    source: Callable[[Split, str], Dataset] = find(Kind.DATA, name)
    return source(split, argument)


def build(recipe: Recipe, classes: int, channels: int, size: int) -> nn.Module:
    """An untrained module of the recipe's architecture.

    Raises:
        InputError: no such architecture or setting, or a normalisation for other channels.
    """
    for field, values in (("mean", recipe.mean), ("std", recipe.std)):
        if len(values) not in (0, channels):
            raise InputError(
                f"{field} has {len(values)} numbers for images of {channels} channels; "
                "give one a channel"
            )
    architecture: Callable[..., nn.Module] = find(Kind.ARCHITECTURES, recipe.arch)
    try:
        return architecture(classes, channels, size, **recipe.arch_set)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"architecture {recipe.arch!r} with {recipe.arch_set}: {error}; "
            f"see rbl show {recipe.arch}"
        ) from error


def load_model(spec: str, *, naive: bool = False) -> Classifier:
    """The classifier of a registered name, or of a .safetensors file with its card beside it.

    Defenses at inference may follow, in the order in which an image passes them:
    `mnist-cnn+jpeg?quality=50+bit-depth`.

    Args:
        spec: what to load.
        naive: give attackers gradients that do not know of the defenses, to show what that hides.

    Raises:
        InputError: no such model or defense, or its files cannot be used.
    """
    base, defenses = _parts(spec)
    classifier = model_from(weights_of(base))
    classifier.naive = naive and bool(defenses)
    for text in defenses:
        name = f"{classifier.name}+{text}"
        classifier = _wrapping(text).wrap(classifier)
        classifier.name = name
    return classifier.eval()


def _parts(spec: str) -> tuple[str, list[str]]:
    """The model and the defenses of a spec; a file's name may have a plus sign in it."""
    if Path(spec).is_file():
        return spec, []
    base, *defenses = spec.split("+")
    return base, defenses


def _wrapping(text: str) -> Wrapping:
    defense = load_defense(text)
    if not isinstance(defense, Wrapping):
        name = text.partition("?")[0]
        raise InputError(
            f"defense {name!r} is trained in and cannot follow a plus sign; "
            f"train a model with rbl train --defense {name}"
        )
    return defense


def load_card(spec: str) -> Card:
    """The card of a registered model, or of a .safetensors file, whatever defenses follow.

    Raises:
        InputError: no such model, or its card cannot be read.
    """
    return read_card(weights_of(_parts(spec)[0]).with_suffix(".toml"))


def weights_of(spec: str) -> Path:
    """The weights file behind a model's name or path.

    Raises:
        InputError: no such model, or a file type that is not loaded.
    """
    path = Path(spec)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise InputError(f"model file {path} does not exist; check the path")
        return path
    if path.suffix in {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}:
        raise InputError(
            f"model file {path} is a pickle, which can run code when it is read; "
            "save the weights with safetensors.torch.save_file"
        )
    location: Path = find(Kind.MODELS, spec)
    return location


def model_from(path: Path) -> Classifier:
    """The classifier whose weights are in `path`, built as its card says.

    Raises:
        InputError: the file is damaged, or weights, checksum and card do not belong together.
    """
    card = read_card(path.with_suffix(".toml"))
    recipe = card.recipe
    module = build(recipe, card.classes, card.channels, card.size)
    try:
        content = path.read_bytes()
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"model file {path} is not a whole safetensors file ({error}); copy or train it again"
        ) from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise InputError(
            f"model file {path} does not match the sha256 in its card; "
            "use the weights and the card of the same training run"
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"model file {path} does not fit its card: {cause}; train it again"
        ) from error
    return classifier_of(module, recipe, card.name)


def classifier_of(module: nn.Module, recipe: Recipe, name: str) -> Classifier:
    """The classifier around a module of the recipe's architecture, in eval mode.

    An architecture whose modules have an attribute `access` gives no more than that.
    """
    return Classifier(
        module.eval(),
        mean=recipe.mean or None,
        std=recipe.std or None,
        access=getattr(module, "access", Access.GRADIENTS),
        name=name,
    )
