"""Where a training run is kept between epochs, so that a kill loses one epoch at most."""

import os
from pathlib import Path
from typing import Any

import torch

from robustbench_lite.errors import InputError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write by rename: the file is always whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def load_checkpoint(path: Path, owner: str) -> dict[str, Any] | None:
    """What was written, if the file is there.

    Raises:
        InputError: it cannot be read, or `owner` is not who wrote it.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it") from error
    if state.get("owner") != owner:
        raise InputError(
            f"checkpoint {path} belongs to another recipe or other data; "
            "delete it or choose another --out"
        )
    return state
