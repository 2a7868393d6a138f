"""Classifiers as files of other programs, normalisation included, compared with the original."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.errors import InputError, RblError
from robustbench_lite.models import load_model
from robustbench_lite.quiet import quietly
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access

_AGREEMENT = 1e-4
_IMAGES = 19  # no power of two: a batch of another size than the one that is traced
_TRACED = 2
_OPSET = 18


def exported(classifier: Classifier, shape: tuple[int, int, int], kind: str) -> bytes:
    """A file of the classifier, for any number of images in [0, 1].

    The file is loaded again and compared with the classifier on random images.

    Args:
        classifier: whose logits the file computes.
        shape: channels, rows and columns of the images.
        kind: .onnx, .pt2 (torch.export) or .ts (TorchScript).

    Raises:
        InputError: no such kind, the classifier is random or no net of torch, the exporter does not
            know something in it, or what it wrote computes something else.
    """
    if kind not in _KINDS:
        raise InputError(f"there are no {kind!r} files of models; choose .onnx, .pt2 or .ts")
    if classifier.access < Access.GRADIENTS:
        raise InputError(
            f"model {classifier.name!r} gives no gradients, as it is no net of torch; "
            "keep the file that it is in"
        )
    if classifier.randomized:
        raise InputError(
            f"model {classifier.name!r} draws random numbers, which files do not repeat; "
            "export it without the random defense"
        )
    source, export = _KINDS[kind]
    x = Rng(torch.arange(_IMAGES)).uniform(*shape).to(classifier.device)
    with borrowed(classifier), torch.no_grad(), warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")
        expected = classifier(x)
        try:
            content = export(classifier, x[:_TRACED])
        except InputError:
            raise
        except Exception as error:  # exporters fail in any way on what they do not know
            raise InputError(
                f"model {classifier.name!r} cannot be exported to {kind} ({_cause(error)}); "
                "choose another kind of file"
            ) from error
        try:
            apart = _difference(source, kind, content, x, expected)
        except RblError:
            apart = torch.inf
    if not apart <= _AGREEMENT * float(expected.abs().max()):
        raise InputError(
            f"model {classifier.name!r}: its {kind} file answers otherwise (by {apart:.2g}); "
            "choose another kind of file"
        )
    return content


def _difference(source: str, kind: str, content: bytes, x: Tensor, expected: Tensor) -> float:
    """How far the logits of a file are from those expected, in a batch and alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{kind}"
        path.write_bytes(content)
        again = load_model(f"{source}:{path}?gradients=no").to(x.device)
        answers = torch.cat([again(x), again(x[:1])])
    return float((answers - torch.cat([expected, expected[:1]])).abs().max())


def _onnx(classifier: Classifier, x: Tensor) -> bytes:
    try:
        import onnxscript
    except ImportError:
        raise InputError(
            "exporting to .onnx needs onnxscript; "
            "install it with pip install 'robustbench-lite[onnx]'"
        ) from None
    del onnxscript  # torch asks for it
    program: Any = torch.onnx.export(
        classifier,
        (x,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_any_number(),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _pt2(classifier: Classifier, x: Tensor) -> bytes:
    file = io.BytesIO()
    program = torch.export.export(classifier, (x,), dynamic_shapes=_any_number())
    torch.export.save(program, file)
    return file.getvalue()


def _ts(classifier: Classifier, x: Tensor) -> bytes:
    file = io.BytesIO()
    traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
        classifier, x, check_trace=False
    )
    torch.jit.save(traced, file)
    return file.getvalue()


def _any_number() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("n")},)


def _cause(error: BaseException) -> str:
    """The first line that the innermost error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


_KINDS: dict[str, tuple[str, Callable[[Classifier, Tensor], bytes]]] = {
    ".onnx": ("onnx", _onnx),
    ".pt2": ("exported", _pt2),
    ".ts": ("torchscript", _ts),
}
