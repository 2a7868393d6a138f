"""Keras models on its torch backend, which gives gradients."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.made import Native, checked_settings, made

_BACKEND = "KERAS_BACKEND"
_PER_BYTE = 1 / 100  # a first layer that scales by less takes pixels of 0 to 255


class _Hidden:
    """A Keras model that torch does not see: its file and its weights tell it apart."""

    __slots__ = ("model",)

    def __init__(self, model: Any) -> None:
        self.model = model


class KerasNet(nn.Module):
    """A Keras model as torch's: channels come first, weights are parameters.

    Args:
        model: on the torch backend.
        architecture: what its file says of it.
        rank: dimensions of its input: 4, or 3 for grey images without channels.
        channels_last: does it take (N, rows, columns, channels)?
    """

    def __init__(self, model: Any, architecture: str, rank: int, channels_last: bool) -> None:
        super().__init__()
        self.hidden, self.architecture = _Hidden(model), architecture
        self.rank, self.channels_last = rank, channels_last
        # Dropout's random numbers are drawn anew at every loading, and answers do not need them.
        kept = (v for v in model.variables if not v.path.endswith("seed_generator_state"))
        self.weights = nn.ParameterList(variable.value for variable in kept)

    def __deepcopy__(self, memo: dict[int, object]) -> KerasNet:
        copied = deepcopy(self.hidden.model, memo)
        return KerasNet(copied, self.architecture, self.rank, self.channels_last).eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) what the model returns for images (N, C, H, W)."""
        return self.hidden.model(self._seen(x), training=False)  # type: ignore[no-any-return]  # Keras has no types

    def _seen(self, x: Tensor) -> Tensor:
        if self.rank == 3:
            return x[:, 0]
        return x.permute(0, 2, 3, 1) if self.channels_last else x


def keras(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A Keras model from a .keras file, run by Keras 3 on torch: keras:FILE.keras.

    Attacks get gradients. Images are handed over with their channels last, as Keras wants them. A
    model whose first layer is a Rescaling from bytes takes pixels of 0 to 255, all others 0 to 1;
    bounds=LOW,HIGH says otherwise. Files with Lambda layers hold code and are refused.
    """
    spec = f"keras:{argument}"
    checked_settings(spec, settings)
    if "num_classes" in settings:
        raise InputError(f"model {spec!r} has its number of outputs already; leave num_classes out")
    path = Path(argument).expanduser()
    if path.suffix != ".keras":
        raise InputError(
            f"model file {path} is not a .keras file; load it in Keras and save it with "
            "model.save('model.keras')"
        )
    if not path.is_file():
        raise InputError(f"model file {path} does not exist; check the path behind keras:")
    model = _loaded(spec, path, _library(spec))
    channels_last, rank, channels, size = _input_of(spec, model)
    with ZipFile(path) as archive:  # which it is, as Keras has loaded it
        architecture = archive.read("config.json").decode()
    module = KerasNet(model, architecture, rank, channels_last)
    native = Native(
        size=size,
        channels=channels,
        classes=_outputs_of(spec, model),
        bounds=(0.0, 255.0) if _takes_bytes(model) else (0.0, 1.0),
        summary="Its outputs are probabilities (a softmax at its end)." if _ends(model) else "",
    )
    return made(spec, module, settings, native)


def _library(spec: str) -> Any:
    """Keras on torch."""
    wished = os.environ.get(_BACKEND)
    try:
        if "keras" not in sys.modules:
            os.environ[_BACKEND] = "torch"
        import keras as library
    except ImportError:
        raise InputError(
            f"model {spec!r} needs keras; install it with pip install 'robustbench-lite[keras]'"
        ) from None
    finally:
        if wished is None:
            os.environ.pop(_BACKEND, None)
        else:
            os.environ[_BACKEND] = wished
    backend = library.config.backend()
    if backend != "torch":
        raise InputError(
            f"model {spec!r} needs Keras on torch, but Keras runs on {backend} already; "
            "set KERAS_BACKEND=torch before it is imported"
        )
    return library


def _loaded(spec: str, path: Path, library: Any) -> Any:
    before = torch.get_rng_state()
    try:
        return library.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras has many errors for files and for layers that it lacks
        if "Lambda" in str(error):
            raise InputError(
                f"model {spec!r} has a Lambda layer, which is code in the file; "
                "replace it with a layer of Keras, or give the model as file.py:factory"
            ) from error
        cause = str(error).strip().splitlines()
        raise InputError(
            f"model file {path} cannot be loaded ({type(error).__name__}: "
            f"{cause[0] if cause else ''}); save it again with model.save, without layers of your "
            "own"
        ) from error
    finally:
        torch.set_rng_state(before)


def _input_of(spec: str, model: Any) -> tuple[bool, int, int, int]:
    """Are channels last, dimensions with the batch's, channels, and rows if as many columns."""
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) not in (3, 4):
        raise InputError(
            f"model {spec!r} takes inputs of shape {shape}, which are no images; "
            "put a layer in front that takes (rows, columns, channels)"
        )
    last = all(getattr(part, "data_format", "") != "channels_first" for part in model.layers)
    if len(shape) == 3:
        channels, rows, columns = 1, shape[1], shape[2]
    elif last:
        _, rows, columns, channels = shape
    else:
        _, channels, rows, columns = shape
    return last, len(shape), channels or 0, rows if rows and rows == columns else 0


def _outputs_of(spec: str, model: Any) -> int:
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or not isinstance(shape[1], int):
        raise InputError(
            f"model {spec!r} returns {shape}, not one row of logits an image; "
            "save a model that ends in its classes"
        )
    return shape[1]


def _takes_bytes(model: Any) -> bool:
    """Does it begin by scaling bytes?"""
    real = [part for part in model.layers if type(part).__name__ != "InputLayer"]
    first = real[0] if real else None
    if first is not None and hasattr(first, "layers"):
        return _takes_bytes(first)
    scale = getattr(first, "scale", None) if type(first).__name__ == "Rescaling" else None
    return isinstance(scale, float) and 0 < scale < _PER_BYTE


def _ends(model: Any) -> bool:
    """Does it end in a softmax?"""
    last = model.layers[-1]
    if hasattr(last, "layers"):
        return _ends(last)
    named = getattr(getattr(last, "activation", None), "__name__", "")
    return named == "softmax" or type(last).__name__ == "Softmax"
