"""ONNX files: read with care, and written in the words that onnx2torch knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_lite.errors import InputError

_SAVE = "export the model again with torch.onnx.export or rbl export"
_LARGEST = 2**31 - 2**20  # of a protocol buffer
_KNOWN_OPSET = 17  # later ones brought types that images do not have, and what `lowered` says
_AXES = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
)


def read(path: Path) -> Any:
    """The model in a file, with the weights that lie beside it.

    Raises:
        InputError: it is none, or it names weights outside of its folder.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protocol buffers and the operating system have their own
        raise InputError(f"model file {path} is no whole ONNX file; {_SAVE}") from error
    if not model.graph.node or not model.opset_import:
        raise InputError(f"model file {path} is no whole ONNX file; {_SAVE}")
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                _check_beside(path, folder, entry.value)
    try:
        onnx.load_external_data_for_model(model, str(folder))
        size = model.ByteSize()
        if size > _LARGEST:
            raise InputError(f"model file {path} has more than 2 GB of weights; quantise it")
        onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:  # onnx has several, and those of files
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"model file {path} is no valid ONNX file ({cause}); {_SAVE}") from error
    return model


def _check_beside(path: Path, folder: Path, location: str) -> None:
    beside = (folder / location).resolve()
    if Path(location).is_absolute() or not beside.is_relative_to(folder):
        raise InputError(
            f"model file {path} names weights outside of its folder ({location}); "
            "keep them beside it"
        )
    if not beside.is_file():
        raise InputError(
            f"model file {path} needs its weights in {beside.name}; put them into the same folder"
        )


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a message, in attributes, subgraphs and functions, too."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
            if hasattr(inner, "DESCRIPTOR"):
                yield from _tensors(inner)


def lowered(model: Any, output: str) -> Any:
    """The same function with one output, in operators of opset 17 or less.

    What onnx2torch cannot read, as exporters of today write it, is said otherwise: constants become
    initializers, axes attributes, and Gelu, Clip and LayerNormalization what they are made of.
    """
    import onnx
    from onnx import numpy_helper

    low = onnx.ModelProto()
    low.CopyFrom(model)
    graph = low.graph
    words = _Words(graph)
    nodes = []
    for node in _needed(graph, output):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            words.keep(node.output[0], numpy_helper.to_array(tensor))
        else:
            nodes.extend(words.of(node))
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [value for value in graph.output if value.name == output]
    del graph.output[:]
    graph.output.extend(kept)
    for opset in low.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, _KNOWN_OPSET)
    return low


def _needed(graph: Any, output: str) -> list[Any]:
    """The nodes that an output depends on, in order."""
    wanted, found = {output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


class _Words:
    """How each node is said in the operators of opset 17."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.count = 0

    def keep(self, name: str, value: np.ndarray) -> str:
        """Make a constant an initializer."""
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.constants[name] = value
        return name

    def of(self, node: Any) -> list[Any]:
        """The nodes to write in the place of one."""
        if node.op_type in _AXES:
            return [self._with_axes(node)]
        if node.op_type == "Reshape":
            return [self._without(node, "allowzero")]
        if node.op_type == "Split":
            return [self._without(node, "num_outputs")]
        if node.op_type == "Gelu":
            return self._gelu(node)
        if node.op_type == "LayerNormalization":
            return self._layer_normalization(node)
        if node.op_type == "Clip" and any(n not in self.constants for n in node.input[1:]):
            return self._clip(node)
        return [node]

    def _without(self, node: Any, key: str) -> Any:
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend(kept)
        return node

    def _with_axes(self, node: Any) -> Any:
        from onnx import helper

        if len(node.input) < 2 or node.input[1] not in self.constants:
            return node
        axes = self.constants[node.input[1]].reshape(-1).tolist()
        del node.input[1]
        node = self._without(node, "noop_with_empty_axes")
        node.attribute.append(helper.make_attribute("axes", axes))
        return node

    def _chain(self, node: Any, steps: list[tuple[str, list[str], dict[str, Any]]]) -> list[Any]:
        """Nodes one after the other; "" among the inputs is what the one before gives."""
        from onnx import helper

        made, last = [], ""
        for number, (kind, inputs, attributes) in enumerate(steps):
            self.count += 1
            out = node.output[0] if number == len(steps) - 1 else f"lowered_{self.count}"
            given = [name or last for name in inputs]
            made.append(helper.make_node(kind, given, [out], f"lowered_{self.count}", **attributes))
            last = out
        return made

    def _number(self, value: float) -> str:
        self.count += 1
        return self.keep(f"lowered_{self.count}", np.array(value, dtype=np.float32))

    def _gelu(self, node: Any) -> list[Any]:
        x = node.input[0]
        half, one = self._number(0.5), self._number(1.0)
        if any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute):
            inner: list[tuple[str, list[str], dict[str, Any]]] = [
                ("Mul", [x, x], {}),
                ("Mul", ["", self._number(0.044715)], {}),
                ("Add", ["", one], {}),
                ("Mul", ["", x], {}),
                ("Mul", ["", self._number((2 / np.pi) ** 0.5)], {}),
                ("Tanh", [""], {}),
            ]
        else:
            inner = [("Mul", [x, self._number(0.5**0.5)], {}), ("Erf", [""], {})]
        more: list[tuple[str, list[str], dict[str, Any]]] = [
            ("Add", ["", one], {}),
            ("Mul", ["", x], {}),
            ("Mul", ["", half], {}),
        ]
        return self._chain(node, inner + more)

    def _clip(self, node: Any) -> list[Any]:
        low, high = [*node.input[1:], "", ""][:2]
        steps: list[tuple[str, list[str], dict[str, Any]]] = []
        if low:
            steps.append(("Max", [node.input[0], low], {}))
        if high:
            steps.append(("Min", ["" if steps else node.input[0], high], {}))
        return self._chain(node, steps)

    def _layer_normalization(self, node: Any) -> list[Any]:
        told = {a.name: a for a in node.attribute}
        axis = told["axis"].i if "axis" in told else -1
        epsilon = told["epsilon"].f if "epsilon" in told else 1e-5
        if axis != -1 or len([n for n in node.output if n]) > 1:
            return [node]
        mean = {"axes": [-1], "keepdims": 1}
        self.count += 1
        centred = f"lowered_{self.count}"
        x = node.input[0]
        first = self._chain(node, [("ReduceMean", [x], mean), ("Sub", [x, ""], {})])
        first[-1].output[0] = centred
        steps: list[tuple[str, list[str], dict[str, Any]]] = [
            ("Mul", [centred, centred], {}),
            ("ReduceMean", [""], mean),
            ("Add", ["", self._number(epsilon)], {}),
            ("Sqrt", [""], {}),
            ("Div", [centred, ""], {}),
            ("Mul", ["", node.input[1]], {}),
        ]
        if len(node.input) > 2 and node.input[2]:
            steps.append(("Add", ["", node.input[2]], {}))
        return first + self._chain(node, steps)
