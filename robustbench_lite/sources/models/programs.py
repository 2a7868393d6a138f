"""Models in archives of torch: programs that need no Python code of their maker."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.archives import export_of, script_of
from robustbench_lite.sources.models.made import Native, checked_settings, made, whole_number
from robustbench_lite.sources.models.program import Program, cause_of, chosen, file_of
from robustbench_lite.threat import Access

_SAVE_SCRIPT = "save the model again with torch.jit.trace(model, x).save(FILE)"
_SAVE_EXPORT = "save the model again with torch.export.save(torch.export.export(model, (x,)), FILE)"
_OWN = ("gradients",)


def torchscript(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A TorchScript program in a file: torchscript:FILE?num_classes=10.

    It is made by torch.jit.trace or torch.jit.script and save, and asked with images normalised as
    --normalize says. Setting gradients=no shows attackers its scores only.

    The program runs in torch's own interpreter: no Python in the file is executed, and nothing is
    unpickled by Python. Its code can still compute whatever torch's operators can, for as long as
    it likes; programs that call operators which write or read files are refused.

    Raises:
        InputError: there is no such file, or it is not a whole TorchScript archive.
    """
    spec = f"torchscript:{argument}"
    checked_settings(spec, settings, _OWN)
    path = file_of(spec, argument, _SAVE_SCRIPT)
    archive, content = script_of(path, _SAVE_SCRIPT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch on the age of the format
            module: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(archive), map_location="cpu"
            )
    except Exception as error:  # the interpreter has errors of several kinds, of C++ too
        raise InputError(
            f"model file {path} cannot be read ({cause_of(error)}); {_SAVE_SCRIPT}"
        ) from error

    def ask(x: Tensor) -> object:
        # The optimising interpreter rounds otherwise from the third call on.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # documented
            return module(x)

    native = Native(classes=whole_number(spec, settings, "num_classes"))
    return _made(spec, Program(module, content, ask=ask), settings, native)


def exported(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """A program of torch.export in a file: exported:FILE.pt2.

    It is asked with images normalised as --normalize says. A program that was exported for a batch
    of one size is asked in batches of that size, the last of them filled up. Setting gradients=no
    shows attackers its scores only.

    The file is checked before torch reads it, as torch.export.load unpickles and evaluates parts of
    it: only programs of torch's own operators over plain tensors are accepted, and nothing else in
    the archive is opened. Pickled weights, custom objects, control flow and compiled libraries are
    refused.

    Raises:
        InputError: there is no such file, it is not a whole archive of torch.export.save, it may
            run code, or its program takes or returns something else than images and logits.
    """
    spec = f"exported:{argument}"
    checked_settings(spec, settings, _OWN)
    path = file_of(spec, argument, _SAVE_EXPORT)
    archive, content = export_of(path, _SAVE_EXPORT)
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it prints tracebacks of what is told below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(archive))
            module = program.module(check_guards=False)
    except Exception as error:  # torch's reader has no errors of its own
        raise InputError(
            f"model file {path} cannot be read ({cause_of(error)}); {_SAVE_EXPORT}"
        ) from error
    finally:
        logger.setLevel(level)
    batch, channels, rows, columns = _input_of(spec, program)
    classes = _classes_of(spec, program)
    told = whole_number(spec, settings, "num_classes")
    if told and classes and told != classes:
        raise InputError(
            f"model {spec!r}: num_classes={told}, but the program has {classes} outputs; "
            "leave num_classes out"
        )
    native = Native(classes=classes or told, channels=channels, size=rows if rows == columns else 0)
    return _made(spec, Program(module, content, batch=batch), settings, native)


def _made(
    spec: str, program: Program, settings: Mapping[str, str], native: Native
) -> tuple[Classifier, Profile]:
    gradients = chosen(spec, "gradients", settings.get("gradients", "yes"), ("yes", "no"))
    classifier, profile = made(spec, program, settings, native)
    if gradients == "no":
        classifier.access = Access.SCORES
    return classifier, profile.model_copy(update={"parameters": program.size})


def _input_of(spec: str, program: Any) -> tuple[int, int, int, int]:
    """Images a batch, channels, rows and columns; 0 where any will do."""
    shapes = _shapes(program, program.graph_signature.user_inputs)
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 4:
        raise InputError(
            f"model {spec!r} takes {_told(shapes)}; export a program that takes images (N, C, H, W)"
        )
    batch, channels, rows, columns = (n if isinstance(n, int) else 0 for n in shapes[0])
    return batch, channels, rows, columns


def _classes_of(spec: str, program: Any) -> int:
    shapes = _shapes(program, program.graph_signature.user_outputs)
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 2:
        raise InputError(
            f"model {spec!r} returns {_told(shapes)}; export a program that returns logits "
            "(N, classes)"
        )
    return shapes[0][1] if isinstance(shapes[0][1], int) else 0


def _shapes(program: Any, names: tuple[object, ...]) -> list[tuple[object, ...] | None]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = (values.get(name) for name in names)
    return [tuple(v.shape) if isinstance(v, Tensor) else None for v in found]


def _told(shapes: list[tuple[object, ...] | None]) -> str:
    one = ("no tensor" if shape is None else str(shape).replace("'", "") for shape in shapes)
    return " and ".join(one) or "nothing"
