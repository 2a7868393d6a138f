"""Weights from files, without running what is in them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustbench_lite import pickles
from robustbench_lite.errors import InputError
from robustbench_lite.pickles import printable

_PREFIXES = ("module.", "model.", "_orig_mod.")  # of data parallel, Lightning, torch.compile
_COUNTER = "num_batches_tracked"  # of batch normalisation; old files lack it, and nothing needs it
_HEADER = 16 * 2**20  # bytes of a safetensors header: 100,000 tensors and more
_SHARED = 10  # tensors that share memory may claim so many times what their file holds
_SHOWN = 5

Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # in the file, in the module


def read_weights(path: Path, key: str = "") -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Args:
        path: a safetensors file, or one of `torch.save` (.pt, .pth, .bin, .ckpt) that holds
            tensors, numbers and texts only; the weights may be one entry among others.
        key: the entry, where there are several with weights.

    Raises:
        InputError: there is no such file, it is damaged, does not hold weights only, or one of them
            is NaN or infinite.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib fails on long names
        raise InputError(f"weights file {path} does not exist; check the path")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(
            f"weights file {path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"weights file {path} is only a pointer of Git LFS; run git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise InputError(f"weights file {path} is a web page; download the file itself")
    if path.suffix == ".safetensors":
        return tensors_of(_safetensors(path), path, key)
    if path.suffix in pickles.SUFFIXES:
        return tensors_of(pickles.read_pickled(path), path, key)
    raise InputError(
        f"weights file {path} has an unknown type; give .safetensors, or .pt, .pth, .bin or .ckpt "
        "of torch.save"
    )


def tensors_of(loaded: object, path: Path, key: str = "") -> dict[str, Tensor]:
    """The weights in what a file held: a module, a dict of tensors, or one with one such entry.

    Args:
        loaded: what the file held.
        path: of the file; the weights can claim no more memory than it has.
        key: the entry, where there are several with weights.

    Raises:
        InputError: there are none, more than one entry has them, or one cannot be used.
    """
    found = None if key else _state(loaded)
    if found is None:
        found = _entry(loaded, path, key)
    if not found:
        raise InputError(f"weights file {path} holds no tensors; save model.state_dict()")
    for name, tensor in found.items():
        _check_kind(name, tensor, path)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    if claimed > _SHARED * path.stat().st_size:
        raise InputError(
            f"weights file {path} claims {claimed} bytes of tensors in {path.stat().st_size}; "
            "save contiguous tensors"
        )
    for name, tensor in found.items():
        if not _finite(tensor):
            raise InputError(
                f"weights file {path}: {printable(name)} is NaN or infinite somewhere; "
                "give the weights of a sound training"
            )
    return found


def load_into(module: nn.Module, path: Path) -> None:
    """Give a module the weights of a file, all of them and no others, in the module's own types.

    A prefix that all names have (module., model., _orig_mod.) is left out if they fit without.

    Raises:
        InputError: as `read_weights` does, or names, shapes or types do not fit; the message tells
            which.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    state = _nearest(read_weights(path), own)
    shapes = {
        name: (tuple(state[name].shape), tuple(value.shape))
        for name, value in own.items()
        if name in state and not is_lazy(value) and state[name].shape != value.shape
    }
    missing, unexpected = _apart(state, own)
    if shapes and not missing and not unexpected and (heads := _heads(shapes, [*own][-1])):
        theirs, ours = heads
        raise InputError(
            f"weights file {path} is for {theirs} classes, and the model is built for {ours} "
            f"({_listed(shapes)}); build it with num_classes={theirs}"
        )
    if not shapes:
        fitting = {name: _cast(name, state[name], own.get(name), path) for name in state}
        try:
            # Strict all the same: what is apart is refused below, with a report of its own.
            result = module.load_state_dict(fitting, strict=False)
        except RuntimeError as error:
            cause = " ".join(str(error).split())
            raise InputError(
                f"weights file {path} does not fit: {cause}; give weights of this architecture"
            ) from error
        missing = [name for name in result.missing_keys if not name.endswith(_COUNTER)]
        unexpected = list(result.unexpected_keys)
    problems = [
        f"{len(names)} {what} ({_listed(names)})"
        for names, what in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            ([_shape_told(name, *pair) for name, pair in shapes.items()], "of another shape"),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"weights file {path} does not fit the model: of {len(own)} tensors "
            f"{', '.join(problems)}; give weights of this architecture, or choose the one that "
            "they are of"
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _HEADER:
                raise InputError(
                    f"weights file {path} is no safetensors file: its header would have {length} "
                    f"bytes; convert others with rbl convert {shlex.quote(str(path))}"
                )
            header = file.read(length)
        json.loads(header, object_pairs_hook=_once)
        return load_file(path)
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        RecursionError,
        SafetensorError,
        AttributeError,
        KeyError,
    ) as error:
        cause = printable(str(error))
        raise InputError(
            f"weights file {path} is not a whole safetensors file ({cause}); copy it again"
        ) from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} comes twice")
    return found


def _state(value: object) -> dict[str, Tensor] | None:
    """The tensors of a module, or of a dict that holds nothing else."""
    if isinstance(value, nn.Module):
        return {name: t for name, t in value.state_dict().items() if isinstance(t, Tensor)}
    if not isinstance(value, Mapping) or not value:
        return None
    found = {name: _tensor(entry) for name, entry in value.items() if isinstance(name, str)}
    tensors = {name: t for name, t in found.items() if t is not None}
    return tensors if len(tensors) == len(value) else None


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value))
    return value.detach() if isinstance(value, Tensor) else None


def _entry(loaded: object, path: Path, key: str) -> dict[str, Tensor]:
    """The weights among what else a file holds, as a training's checkpoint does."""
    entries = loaded if isinstance(loaded, Mapping) else {}
    states = {
        str(name): state
        for name, value in entries.items()
        if (state := _state(value)) is not None and (not key or name == key)
    }
    if len(states) == 1:
        return next(iter(states.values()))
    if states:
        raise InputError(
            f"weights file {path} has weights in {len(states)} entries ({_listed(states)}); write "
            f"the right one with rbl convert {shlex.quote(str(path))} --key {next(iter(states))}"
        )
    kind = "nothing" if isinstance(loaded, Mapping) else f"an object of {type(loaded).__name__}"
    held = f"({_listed(map(str, entries))})" if entries else f"but {kind}"
    raise InputError(
        f"weights file {path} has no entry {key!r} of tensors only {held}; name another key"
        if key
        else f"weights file {path} holds no dict of tensors {held}; save model.state_dict()"
    )


def _check_kind(name: str, tensor: Tensor, path: Path) -> None:
    plain = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_nested
    if plain and tensor.device.type == "cpu" and not (tensor.is_quantized or tensor.is_complex()):
        return
    raise InputError(
        f"weights file {path}: {printable(name)} is no plain tensor of numbers, but "
        f"{'quantized' if tensor.is_quantized else tensor.dtype} on {tensor.device} in "
        f"{tensor.layout}; save plain tensors"
    )


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.float()
    return bool(torch.isfinite(wide).all())


def _nearest(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by those names, with or without the prefixes of all, that fit best."""
    variants = [state]
    while True:
        last = variants[-1]
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in last)), None)
        if prefix is None:
            break
        variants.append({name.removeprefix(prefix): tensor for name, tensor in last.items()})
    return min(variants, key=lambda variant: sum(map(len, _apart(variant, own))))


def _apart(state: Iterable[str], own: Iterable[str]) -> tuple[list[str], list[str]]:
    there, here = set(state), set(own)
    missing = sorted(name for name in here - there if not name.endswith(_COUNTER))
    return missing, sorted(there - here)


def _cast(name: str, tensor: Tensor, own: Tensor | None, path: Path) -> Tensor:
    if own is None or own.dtype == tensor.dtype:
        return tensor
    if own.is_floating_point() and tensor.is_floating_point():
        cast = tensor.to(own.dtype)
        if _finite(cast):
            return cast
        problem = f"is too large for {own.dtype}"
    elif own.is_floating_point() or tensor.is_floating_point():
        problem = f"is {tensor.dtype}, not {own.dtype}"
    else:
        return tensor
    raise InputError(
        f"weights file {path}: {printable(name)} {problem}; give weights of this architecture"
    )


def _heads(shapes: Mapping[str, Shapes], last: str) -> tuple[int, int] | None:
    """How many classes the file and the module have, if nothing else differs at its end."""
    pairs = set()
    for theirs, ours in shapes.values():
        if not theirs or not ours or theirs[1:] != ours[1:]:
            return None
        pairs.add((theirs[0], ours[0]))
    ends = {name.rpartition(".")[0] for name in shapes}
    return pairs.pop() if len(pairs) == 1 and last.rpartition(".")[0] in ends else None


def _shape_told(name: str, theirs: tuple[int, ...], ours: tuple[int, ...]) -> str:
    return f"{name}: {theirs} instead of {ours}"


def _listed(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
