"""`rbl export`: a model as a file that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_lite.cli import files, subjects
from robustbench_lite.errors import InputError

_KINDS = (".onnx", ".pt2", ".ts")


def export(
    model: Annotated[
        str, typer.Argument(help="A model as for rbl attack; defenses may follow: mnist-cnn+jpeg.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The file: .onnx, .pt2 (torch.export) or .ts (TorchScript)."
        ),
    ],
    size: Annotated[
        int | None,
        typer.Option(
            "--size", help="Rows and columns of the images.", show_default="the model's", min=1
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            "--channels", help="Channels of the images.", show_default="the model's", min=1
        ),
    ] = None,
) -> None:
    """Write a model to a file, for any number of images in [0, 1]: normalisation is inside.

    The file is loaded again and compared with the model before it is written. It can be attacked as
    onnx:FILE, exported:FILE or torchscript:FILE.
    """
    kind = out.suffix.lower()
    if kind not in _KINDS:
        raise InputError(f"--out {out} must end in .onnx, .pt2 or .ts; rename it")
    files.check_writable(out, "--out")

    import torch

    from robustbench_lite.cli import screen
    from robustbench_lite.export import exported

    classifier, profile = subjects.model_of(model, torch.device("cpu"))
    side, depth = size or profile.size, channels or profile.channels
    if not side or not depth:
        raise InputError(
            f"model {model!r} takes images of any shape; "
            "give those of the file with --size and --channels"
        )
    content = exported(classifier, (depth, side, side), kind)
    files.write_whole({out: content})
    screen.console().print(
        f"{out}: {model} for images of {depth} x {side} x {side}, {len(content)} bytes",
        soft_wrap=True,
    )
