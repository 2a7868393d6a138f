"""Models in ONNX files, of any framework."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.card import Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError, unknown
from robustbench_lite.rng import Rng
from robustbench_lite.sources.models.made import Native, checked_settings, made, whole_number
from robustbench_lite.sources.models.onnx_file import lowered, read
from robustbench_lite.sources.models.program import Program, cause_of, chosen, digest_of, file_of
from robustbench_lite.threat import Access

_AGREEMENT = 1e-4
_IMAGES = 4
_SIZES = (32, 224, 28, 64)  # tried in this order where the graph leaves rows and columns open
_COLOURS = (1, 3)
_INTEGERS = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_SAVE = "export the model again with torch.onnx.export or rbl export"


def onnx(argument: str, settings: Mapping[str, str]) -> tuple[Classifier, Profile]:
    """An ONNX file of any framework: onnx:FILE.

    The model becomes a net of torch through onnx2torch, so that attackers have gradients. The net
    is compared with onnxruntime on random images; where it differs by more than 1e-4 of the largest
    logit, or cannot be made, onnxruntime answers, and attackers see scores only. What it came to is
    told with the results.

    Settings: gradients=no asks onnxruntime in any case; output=NAME chooses one of several outputs;
    layout=nchw or nhwc tells where the channels are, and size=N how many rows and columns there
    are, if the graph does not. Images are given in [0, 1], normalised as --normalize says; a model
    of whole numbers gets 0 to 255 and has no gradients. Graphs made for a batch of one size are
    asked in batches of that size. Weights beside the file are read from its own folder only.

    Raises:
        InputError: there is no such file, it is no valid ONNX file, or it takes or returns
            something else than images and logits.
    """
    spec = f"onnx:{argument}"
    checked_settings(spec, settings, ("gradients", "output", "layout", "size"))
    path = file_of(spec, argument, _SAVE)
    _needs("onnx")
    _needs("onnxruntime")
    model = read(path)
    wanted = chosen(spec, "gradients", settings.get("gradients", "yes"), ("yes", "no"))
    layout = settings.get("layout")
    if layout is not None:
        chosen(spec, "layout", layout, ("nchw", "nhwc"))
    content = model.SerializeToString()
    graph = _graph_of(spec, path, content, settings.get("output"), layout)
    digest = digest_of([("model", content)])
    what = f"{graph.output} {graph.layout}"
    runtime = Program(None, digest, ask=graph.ask, batch=graph.batch, what=what)
    sample = _images_for(spec, runtime, graph, whole_number(spec, settings, "size"))
    scores = runtime(sample)
    assert isinstance(scores, Tensor)
    told = whole_number(spec, settings, "num_classes")
    if told and told != scores.shape[1]:
        raise InputError(
            f"model {spec!r}: num_classes={told}, but the file has {scores.shape[1]} outputs; "
            "leave num_classes out"
        )
    native = Native(
        classes=scores.shape[1],
        channels=graph.channels,
        size=graph.rows if graph.rows == graph.columns else 0,  # of any, if it is open
    )
    net: Program | None = None
    reason = "gradients=no"
    if wanted == "yes":
        net, reason = _differentiable(model, graph, digest, sample, scores)
    classifier, profile = made(spec, net or runtime, settings, native)
    told_of = (
        "differentiable, through onnx2torch"
        if net is not None
        else f"scores only, through onnxruntime: {reason}"
    )
    if net is None:
        classifier.access = Access.SCORES
    return classifier, profile.model_copy(
        update={"summary": told_of, "parameters": _weights_in(model)}
    )


@dataclass(frozen=True)
class _Graph:
    """How onnxruntime is asked: with images (N, C, H, W) of floats."""

    spec: str
    session: Any
    name: str
    kind: str
    output: str
    layout: str
    batch: int
    channels: int
    rows: int
    columns: int

    def ask(self, x: Tensor) -> Tensor:
        """(N, K) float32 logits."""
        own = x.detach().cpu()
        if self.layout == "nhwc":
            own = own.permute(0, 2, 3, 1)
        if self.kind in _INTEGERS:
            images = (255 * own).round().numpy().astype(_INTEGERS[self.kind])
        else:
            images = own.numpy().astype(_FLOATS[self.kind])
        try:
            (scores,) = self.session.run([self.output], {self.name: np.ascontiguousarray(images)})
        except Exception as error:  # onnxruntime's errors have no common parent
            raise InputError(
                f"model {self.spec!r} cannot take images of shape {tuple(x.shape[1:])} "
                f"({cause_of(error)}); check that model and data belong together"
            ) from error
        return torch.from_numpy(np.asarray(scores).astype(np.float32)).to(x.device)


class _Channelled(nn.Module):
    """A net that wants its channels last, or its pixels in double precision."""

    def __init__(self, net: nn.Module, graph: _Graph) -> None:
        super().__init__()
        self.net, self.graph = net, graph

    def forward(self, x: Tensor) -> object:
        """(N, K) logits of images (N, C, H, W)."""
        kinds = {"tensor(double)": torch.float64, "tensor(float16)": torch.float16}
        own = x.permute(0, 2, 3, 1) if self.graph.layout == "nhwc" else x
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx2torch slices in a deprecated way
            return self.net(own.to(kinds.get(self.graph.kind, torch.float32)))


def _graph_of(
    spec: str, path: Path, content: bytes, output: str | None, layout: str | None
) -> _Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common parent
        raise InputError(
            f"model file {path} is not read by onnxruntime ({cause_of(error)}); "
            "export it with opset_version=18"
        ) from error
    inputs, outputs = session.get_inputs(), [o.name for o in session.get_outputs()]
    if len(inputs) != 1:
        raise InputError(
            f"model {spec!r} takes {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); "
            "export it so that images are its only input"
        )
    if output is not None and output not in outputs:
        raise unknown(f"output of model {spec!r}", output, outputs)
    if output is None and len(outputs) != 1:
        raise InputError(
            f"model {spec!r} has the outputs {', '.join(outputs)}; "
            "choose the logits with output=NAME"
        )
    (given,) = inputs
    shape = [n if isinstance(n, int) else 0 for n in given.shape]
    if len(shape) != 4 or given.type not in (_INTEGERS | _FLOATS):
        raise InputError(
            f"model {spec!r} takes {given.type} of shape {given.shape}; "
            "export it so that it takes images (N, C, H, W)"
        )
    last = shape[1] not in _COLOURS and shape[3] in _COLOURS
    layout = layout or ("nhwc" if last else "nchw")
    batch, *rest = shape
    rows, columns, channels = rest if layout == "nhwc" else (*rest[1:], rest[0])
    return _Graph(
        spec,
        session,
        given.name,
        given.type,
        output or outputs[0],
        layout,
        batch,
        channels,
        rows,
        columns,
    )


def _images_for(spec: str, runtime: Program, graph: _Graph, size: int) -> Tensor:
    """A few random images that the model takes, checked for what it answers.

    Raises:
        InputError: it takes none, or answers with something else than logits (N, K).
    """
    for channels in (graph.channels,) if graph.channels else (3, 1):
        for side in (size,) if size or (graph.rows and graph.columns) else _SIZES:
            shape = (channels, graph.rows or side, graph.columns or side)
            x = Rng(torch.arange(_IMAGES)).uniform(*shape)
            try:
                scores = runtime(x)
            except InputError:
                continue
            if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(x):
                got = tuple(scores.shape) if isinstance(scores, Tensor) else "nothing"
                raise InputError(
                    f"model {spec!r} returns {graph.output} of shape {got} for {_IMAGES} images; "
                    "choose logits (N, classes) with output=NAME, or export it again"
                )
            return x
    tried = graph.rows or size or " or ".join(map(str, _SIZES))
    raise InputError(
        f"model {spec!r} takes no images of {tried} rows and columns; "
        "tell its own with size=N, and where its channels are with layout=nchw or nhwc"
    )


def _differentiable(
    model: Any, graph: _Graph, digest: str, x: Tensor, expected: Tensor
) -> tuple[Program | None, str]:
    """A net of torch that answers as onnxruntime does, or None and the reason."""
    if graph.kind in _INTEGERS:
        return None, "it takes whole numbers"
    _needs("onnx2torch")
    import onnx2torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = _Channelled(onnx2torch.convert(lowered(model, graph.output)).eval(), graph)
            what = f"{graph.output} {graph.layout} torch"
            program = Program(net, digest, batch=graph.batch, what=what)
            leaf = x.clone().requires_grad_(True)
            with torch.enable_grad():
                got = program(leaf)
                if not isinstance(got, Tensor) or not got.requires_grad:
                    return None, "no gradient passes through it"
                torch.autograd.grad(got.sum(), leaf)
            alone = program(x[:1])
    except Exception as error:  # converters fail in any way on a graph that they do not know
        kind = re.search(r"operation_type='(\w+)'", str(error))
        return None, f"{kind[1]} is not converted" if kind else cause_of(error)
    if got.shape != expected.shape or not isinstance(alone, Tensor):
        return None, f"onnx2torch's net gives {tuple(got.shape)}"
    largest = float(expected.abs().max())
    apart = max(
        float((got.detach().float() - expected).abs().max()),
        float((alone.detach().float() - expected[:1]).abs().max()),
    )
    if not apart <= _AGREEMENT * largest:
        return None, f"onnx2torch's net differs by {apart:.2g} where logits reach {largest:.2g}"
    return program, ""


def _weights_in(model: Any) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def _needs(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise InputError(
            f"models in ONNX files need {package}; "
            "install it with pip install 'robustbench-lite[onnx]'"
        )
