"""Weights from files, without running what is in them."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_lite.errors import InputError


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Raises:
        InputError: there is no such file, or it is not one of weights only.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"weights file {path} cannot be read ({error}); give a safetensors file"
        ) from error


def load_into(module: nn.Module, path: Path) -> None:
    """Give a module the weights of a file, all of them and no others.

    Raises:
        InputError: as `read_weights` does, or names or shapes do not fit; the message tells which.
    """
    try:
        module.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise InputError(f"weights file {path} does not fit: {error}") from error
