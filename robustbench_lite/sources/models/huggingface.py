"""Image classifiers of the Hugging Face hub, or from a folder as it stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.colours import Seen, seen_by
from robustbench_lite.sources.models.hub import CONFIGS, WEIGHTS, folder_of, missing
from robustbench_lite.sources.models.made import (
    RANDOM,
    Native,
    check_outputs,
    checked_settings,
    is_set,
    made,
    seeded,
    weights_file,
    whole_number,
)
from robustbench_lite.sources.models.timm import timm_built, timm_native
from robustbench_lite.weights import load_into

_OWN = ("weights", "random", "trust_remote_code")


class _Logits(nn.Module):
    """The logits of a model that returns them in a record."""

    def __init__(self, model: nn.Module, order: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.model, self.order = model, order

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits of images (N, C, H, W)."""
        seen = x[:, list(self.order)] if self.order else x
        return self.model(pixel_values=seen).logits  # type: ignore[no-any-return]  # of a record


def hf(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """An image classifier of the Hugging Face hub, as hf:microsoft/resnet-50@main.

    Behind the @ stands a branch, a tag or a commit. A folder works like a repository: hf:./folder.
    Both transformers' and timm's models are taken. Weights are read from safetensors files only;
    mean, standard deviation, image size and class names are what the repository says.

    --weights FILE gives other weights, and --num-classes the number of outputs with them; an
    untrained net is hf:NAME?random=yes. Code that comes with a repository is run only with
    --trust-remote-code, and only at a commit: hf:org/name@COMMIT with its 40 digits.
    """
    spec = f"hf:{argument}"
    checked_settings(spec, settings, _OWN)
    file = weights_file(spec, settings, published=_keeps_weights(settings), example="hf:org/name")
    trusted = is_set(spec, settings, "trust_remote_code")
    folder = folder_of(spec, argument, trusted=trusted, weights=_keeps_weights(settings))
    config = _json(spec, folder / CONFIGS[0])
    for name in CONFIGS:
        if (folder / name).is_file():
            _check_code(spec, _json(spec, folder / name), trusted)
    if "architecture" in config and "model_type" not in config:
        module, native = _of_timm(spec, folder, settings)
    else:
        with _quietly():
            module, native = _of_transformers(spec, folder, settings, trusted=trusted)
    if file is not None:
        load_into(module.model if isinstance(module, _Logits) else module, file)
    return made(spec, module, settings, native)


def _keeps_weights(settings: Mapping[str, str]) -> bool:
    """Are the weights those of the repository?"""
    return "weights" not in settings and settings.get("random", "no") == "no"


def _json(spec: str, file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"model {spec!r}: {file.name} cannot be read ({error}); it must be a repository or "
            "folder that save_pretrained wrote"
        ) from error


def _check_code(spec: str, config: Mapping[str, Any], trusted: bool) -> None:
    """Raise InputError where code of the repository would run that nobody trusted."""
    code = config.get("auto_map")
    if not code:
        return
    if not trusted:
        raise InputError(
            f"model {spec!r} needs code that comes with its repository; read it, pin the commit as "
            "hf:org/name@COMMIT, and add --trust-remote-code"
        )
    if "--" in json.dumps(code):
        raise InputError(
            f"model {spec!r} takes its code from another repository, which no commit pins; "
            "copy both into a folder and give hf:./folder"
        )


def _check_safetensors(spec: str, folder: Path) -> None:
    if not any((folder / name).is_file() for name in WEIGHTS[:2]):
        raise InputError(
            f"model {spec!r} has no {WEIGHTS[0]}, and no other kind of weights is read; "
            "save it again with save_pretrained, or give a file with --weights FILE"
        )


def _of_timm(spec: str, folder: Path, settings: Mapping[str, str]) -> tuple[nn.Module, Native]:
    if find_spec("timm") is None:
        raise missing(spec, "timm", "timm")
    keeps = _keeps_weights(settings)
    if keeps:
        _check_safetensors(spec, folder)
        wanted = whole_number(spec, settings, "num_classes")
        check_outputs(spec, wanted, int(_json(spec, folder / "config.json")["num_classes"]))
    module = timm_built(spec, f"local-dir:{folder}", settings, pretrained=keeps)
    drawn = settings.get("random") == "yes"
    return module, timm_native(module, settings, spec, drawn=drawn, tag="hub")


def _of_transformers(
    spec: str, folder: Path, settings: Mapping[str, str], *, trusted: bool
) -> tuple[nn.Module, Native]:
    try:
        from transformers import AutoConfig
    except ImportError:
        raise missing(spec, "transformers", "hf") from None
    keeps = _keeps_weights(settings)
    wanted = whole_number(spec, settings, "num_classes")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(spec, error) from error
    if keeps:
        _check_safetensors(spec, folder)
        check_outputs(spec, wanted, config.num_labels)
    elif wanted and wanted != config.num_labels:
        config.num_labels = wanted
    module = _loaded(spec, folder, config, trusted) if keeps else _drawn(spec, config, trusted)
    _forget_where(module)
    channels = getattr(config, "num_channels", 3)
    seen = _seen(spec, folder, channels, settings, trusted=trusted)
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    native = Native(
        mean=seen.mean,
        std=seen.std,
        size=seen.size,
        channels=channels,
        classes=config.num_labels,
        names=() if names[0] == "LABEL_0" else names,
        crop=seen.crop,
        interpolation=seen.interpolation,
        summary=RANDOM if settings.get("random") == "yes" else "",
    )
    return _Logits(module, seen.order), native


def _forget_where(module: Any) -> None:
    """Where its files lie changes no answer, and so must not change its digest."""
    module.config._name_or_path = ""
    for part in module.modules():
        if hasattr(part, "name_or_path"):
            part.name_or_path = ""


def _loaded(spec: str, folder: Path, config: Any, trusted: bool) -> Any:
    """The model with the weights of the folder, all of them."""
    from transformers import AutoModelForImageClassification

    try:
        with seeded():
            module, told = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=trusted,
                output_loading_info=True,
            )
    except Exception as error:  # configurations, files and code of others fail in any way
        raise _unusable(spec, error) from error
    lacking = sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])})
    if lacking:
        raise InputError(
            f"model {spec!r} has no weights for {', '.join(lacking[:3])}, so these would be "
            "random; choose one that was trained to classify, or give --weights FILE"
        )
    return module.float()


def _drawn(spec: str, config: Any, trusted: bool) -> Any:
    library: Any = import_module("transformers")
    try:
        with seeded():
            return library.AutoModelForImageClassification.from_config(
                config, trust_remote_code=trusted
            )
    except Exception as error:  # configurations and code of others fail in any way
        raise _unusable(spec, error) from error


def _unusable(spec: str, error: Exception) -> InputError:
    cause = str(error).strip().splitlines()
    return InputError(
        f"model {spec!r} cannot be loaded as an image classifier ({type(error).__name__}: "
        f"{cause[0] if cause else ''}); choose a repository for image classification"
    )


def _seen(
    spec: str, folder: Path, channels: int, settings: Mapping[str, str], *, trusted: bool
) -> Seen:
    """What the repository's image processor does."""
    if not (folder / CONFIGS[1]).is_file():
        if "normalize" in settings:
            return Seen()
        raise InputError(
            f"model {spec!r} has no {CONFIGS[1]}, so nobody knows what its inputs are; "
            "add it, or give --normalize imagenet, none or MEAN/STD"
        )
    library: Any = import_module("transformers")
    try:
        processor = library.AutoImageProcessor.from_pretrained(folder, trust_remote_code=trusted)
    except Exception as error:  # settings and code of others fail in any way
        raise _unusable(spec, error) from error
    return seen_by(spec, processor, channels)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bars and advice, which are there again afterwards."""
    try:
        logging: Any = import_module("transformers.utils.logging")
    except ImportError:
        yield
        return
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
