"""`rbl convert`: weights out of a pickle, into a file that cannot run code."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = ".safetensors"


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            help="What torch.save wrote: .pt, .pth, .bin or .ckpt.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The .safetensors file to write.",
            show_default="FILE with the ending .safetensors, if there is none yet",
        ),
    ] = None,
    key: Annotated[
        str,
        typer.Option(
            "--key",
            help="The entry with the weights, where a checkpoint has several, as model or ema.",
            show_default=False,
        ),
    ] = "",
    unsafe_pickle: Annotated[
        bool,
        typer.Option(
            "--unsafe-pickle",
            help="Open a pickle of any kind, which runs whatever code it holds, with your rights. "
            "Only for files whose author you trust.",
        ),
    ] = False,
) -> None:
    """Write the weights in a file of torch.save as safetensors.

    Files of tensors need nothing more. A pickled module or any other object is refused, with the
    names of what it would import, unless --unsafe-pickle is given; the new file then records that,
    with the sha256 of the old one.
    """
    target = _target(file, out)
    files.check_writable(target, "--out")

    from safetensors.torch import save

    from robustbench_lite.cli import screen

    digest = _sha256(file)
    if unsafe_pickle:
        # It stands there before anything runs that could hide it.
        screen.console().print(f"opening {file}, sha256 {digest}", soft_wrap=True)
    state = _run(file, key, digest) if unsafe_pickle else _read(file, key)
    metadata = {
        "format": "pt",
        "source": file.name,
        "source_sha256": digest,
        "converted": datetime.now(UTC).isoformat(timespec="seconds"),
        "read": "unsafe-pickle" if unsafe_pickle else "weights-only",
    }
    # Tensors that share memory, or are views of others, are written as tensors of their own.
    apart = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    files.write_whole({target: save(apart, metadata)})
    count = sum(tensor.numel() for tensor in apart.values())
    screen.console().print(
        f"{target}: {len(apart)} tensors of {count:,} numbers; {file.name} has sha256 {digest}",
        soft_wrap=True,
    )


def _target(source: Path, out: Path | None) -> Path:
    if not os.path.isfile(source):  # noqa: PTH113 - pathlib fails on long names
        raise InputError(f"file {source} does not exist; check the path")
    if source.suffix == _SUFFIX:
        raise InputError(f"file {source} is a safetensors file already; use it as it is")
    if out is None:
        target = source.with_suffix(_SUFFIX)
        if target.exists():
            raise InputError(f"{target} exists already; name the file to write with --out")
        return target
    if out.suffix != _SUFFIX:
        raise InputError(f"--out {out} is no .safetensors file; give it that ending")
    return out


def _read(source: Path, key: str) -> dict[str, Tensor]:
    from robustbench_lite.weights import read_weights

    return read_weights(source, key)


def _run(source: Path, key: str, digest: str) -> dict[str, Tensor]:
    from robustbench_lite.pickles import run_pickle
    from robustbench_lite.weights import tensors_of

    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"file {source} is being changed; wait until it is whole")
    return tensors_of(run_pickle(content), source, key)


def _sha256(source: Path) -> str:
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"file {source} cannot be read ({error.strerror}); check it") from error
