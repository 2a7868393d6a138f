"""Classifiers by name: built as their cards say, with their weights, behind their defenses."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from robustbench_lite.card import Card, Profile, Recipe, read_card
from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Training, Wrapping
from robustbench_lite.errors import InputError, UnsupportedError
from robustbench_lite.model_specs import parts_of, source_of
from robustbench_lite.registry import Kind, find, load_defense, settings_of
from robustbench_lite.threat import Access
from robustbench_lite.weights import tensors_of

Source = Callable[[str, Mapping[str, str]], tuple[Classifier, Profile]]


def load_model(spec: str, *, naive: bool = False) -> Classifier:
    """The classifier of a registered name, or of a .safetensors file with its card beside it.

    Models from elsewhere are SOURCE:NAME?KEY=VALUE&..., as `clip:cifar10-clip?prompts=a small {}`,
    a Python factory as `path/to/file.py:factory` or `package.module:factory`, or an address
    `http://...#KEY=VALUE&...`. Defenses at inference may follow, in the order in which an image
    passes them: `mnist-cnn+jpeg?quality=50+bit-depth`.

    Args:
        spec: what to load.
        naive: give attackers gradients that do not know of the defenses, to show what that hides.

    Raises:
        InputError: no such model or defense, or its files cannot be used.
    """
    return load_with_profile(spec, naive=naive)[0]


def load_with_profile(spec: str, *, naive: bool = False) -> tuple[Classifier, Profile]:
    """The classifier, as `load_model` does, and what an evaluation needs to know of it."""
    base, defenses = parts_of(spec)
    classifier, profile = _undefended(base, naive)
    classifier.naive = naive and (classifier.naive or bool(defenses))
    for text in defenses:
        name = f"{classifier.name}+{text}"
        classifier = wrapping(text).wrap(classifier)
        classifier.name = name
    return classifier.eval(), profile


def _undefended(spec: str, naive: bool) -> tuple[Classifier, Profile]:
    name, argument, mark = source_of(spec)
    if name is None:
        weights = weights_of(spec)
        return model_from(weights, naive=naive), read_card(weights.with_suffix(".toml"))
    text, values = settings_of("model", argument, mark)
    source: Source = find(Kind.MODELS, name)
    if not text and _needs_a_name(source):
        raise InputError(f"{name!r} needs the name of a model; write {name}:NAME")
    classifier, profile = source(text, values)
    classifier.name = spec
    return classifier, profile.model_copy(update={"name": spec})


def _needs_a_name(source: Source) -> bool:
    """A source of one model only has a default for its first parameter."""
    first = next(iter(inspect.signature(source).parameters.values()))
    return first.default is inspect.Parameter.empty


def wrapping(text: str) -> Wrapping:
    """The defense at inference of a spec such as `jpeg?quality=50`.

    Raises:
        InputError: no such defense or setting, or it is one that is trained in.
    """
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
    return read_card(weights_of(parts_of(spec)[0]).with_suffix(".toml"))


def weights_of(spec: str) -> Path:
    """The weights file behind a model's name or path.

    Raises:
        InputError: no such model, or a file type that is not loaded.
    """
    path = Path(spec)
    if path.suffix == ".safetensors":
        if not os.path.isfile(path):  # noqa: PTH113 - pathlib fails on long names
            raise InputError(f"model file {path} does not exist; check the path")
        return path
    if path.suffix in {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}:
        raise InputError(
            f"model file {path} is a pickle, which can run code when it is read; write its weights "
            f"with rbl convert {path} or safetensors.torch.save_file, and name what they are of, "
            f"as --model timm:resnet18 --weights {path.with_suffix('.safetensors')}"
        )
    if source_of(spec)[0] is not None:
        raise InputError(
            f"model {spec!r} has no card of its own; name a model that was trained here"
        )
    location: Path = find(Kind.MODELS, spec)
    return location


def model_from(path: Path, *, naive: bool = False) -> Classifier:
    """The classifier whose weights are in `path`, built as its card says; `naive` as above.

    Raises:
        InputError: the file is damaged, or weights, checksum and card do not belong together.
    """
    card = read_card(path.with_suffix(".toml"))
    recipe = card.recipe
    classifier = untrained(recipe, card.classes, card.channels, card.size, card.name, naive=naive)
    try:
        content = path.read_bytes()
        state = load(content)
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
        classifier.model.load_state_dict(tensors_of(state, path))
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"model file {path} does not fit its card: {cause}; train it again"
        ) from error
    return _unaware(classifier, recipe) if naive else classifier


def _unaware(classifier: Classifier, recipe: Recipe) -> Classifier:
    """What an attacker sees who knows nothing of the training."""
    defense = load_defense(recipe.defense, **recipe.defense_set)
    if not isinstance(defense, Training):
        return classifier
    seen = defense.unaware(classifier)
    seen.naive = classifier.naive or seen is not classifier
    return seen


def untrained(
    recipe: Recipe, classes: int, channels: int, size: int, name: str, *, naive: bool = False
) -> Classifier:
    """The classifier of a recipe before training, in eval mode.

    An architecture whose modules have an attribute `access` gives no more than that.

    Args:
        recipe: what to build, and which defenses stand before it.
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images.
        name: what tables call it.
        naive: as in `load_model`.

    Raises:
        InputError: no such architecture, defense or setting, a normalisation for other channels,
            or a defense that a net cannot be trained behind.
    """
    before = [wrapping(text) for text in recipe.behind]
    for defense in before:
        channels = defense.channels(channels)
    module = build(recipe, classes, channels, size).eval()
    classifier = Classifier(
        module,
        mean=recipe.mean or None,
        std=recipe.std or None,
        access=getattr(module, "access", Access.GRADIENTS),
        name=name,
    )
    classifier.naive = naive and bool(before)
    for text, defense in zip(recipe.behind, before, strict=True):
        classifier = defense.wrap(classifier)
        if classifier.model.state_dict().keys() != module.state_dict().keys():
            raise UnsupportedError(
                f"a net cannot be trained behind {text}; train without it and write it behind the "
                f"model, as mnist-cnn+{text}"
            )
    classifier.name = name
    return classifier


def begin_from(classifier: Classifier, recipe: Recipe) -> Classifier:
    """The classifier with the backbone of `recipe.init_from`, which learns no more if frozen.

    The backbone is everything but the last linear layer, the head, which stays untrained.

    Raises:
        InputError: no such model, its file is not the one that the recipe names, or it has another
            backbone.
    """
    if not recipe.init_from:
        return classifier
    digest = load_card(recipe.init_from).sha256
    if recipe.init_sha256 not in ("", digest):
        raise InputError(
            f"--init-from {recipe.init_from} has other weights than the recipe was made with; "
            "give the file with the sha256 that the recipe names"
        )
    module = classifier.model
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    own, given = module.state_dict(), load_model(recipe.init_from).model.state_dict()
    head = {key for key in own if linear and key.startswith(f"{linear[-1]}.")}
    apart = [
        key for key in own.keys() - head if key not in given or given[key].shape != own[key].shape
    ]
    if apart or not head:
        what = f"differs in {min(apart)}" if apart else "has no linear layer at its end"
        raise InputError(
            f"--init-from {recipe.init_from}: the backbone of {recipe.arch!r} with "
            f"{recipe.arch_set} {what}; give the same --arch and --arch-set as the model has"
        )
    module.load_state_dict({key: own[key] if key in head else given[key] for key in own})
    if recipe.freeze == "backbone":
        for name, p in module.named_parameters():
            p.requires_grad_(name in head)
    return classifier


def build(recipe: Recipe, classes: int, channels: int, size: int) -> nn.Module:
    """An untrained module of the recipe's architecture, for what it sees of an image.

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
