"""What is said to a service and what it answers, as JSON: two protocols, scores or labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from robustbench_lite.errors import InputError
from robustbench_lite.threat import Access

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Protocol(StrEnum):
    """KServe's and TensorFlow Serving's first, or the Open Inference Protocol."""

    V1 = "v1"
    V2 = "v2"


class Layout(StrEnum):
    """In which order pixels are sent."""

    NCHW = "nchw"
    NHWC = "nhwc"


class MalformedError(ValueError):
    """An answer that says nothing of the images; the message tells why."""


@dataclass(frozen=True)
class Service:
    """A remote model: all that decides what it answers.

    Attributes:
        address: where, http or https.
        protocol: of its JSON.
        layout: of the images.
        access: scores, or decisions where it answers with labels.
        count: of its classes, 0 where it is not known.
        names: of its classes, if it answers with them.
        input: v2's name of the images.
        output: v2's name of the answers; "" for the first.
    """

    address: str
    protocol: Protocol = Protocol.V1
    layout: Layout = Layout.NCHW
    access: Access = Access.SCORES
    count: int = 0
    names: tuple[str, ...] = ()
    input: str = "input"
    output: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change with anything that changes what it says."""
        said = [self.address, self.protocol, self.layout, int(self.access), self.input, self.output]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def question(self, images: Floats) -> bytes:
        """The body of a call about images (N, C, H, W), with every float exactly."""
        x = images if self.layout is Layout.NCHW else images.transpose(0, 2, 3, 1)
        if self.protocol is Protocol.V1:
            return json.dumps({"instances": x.tolist()}, allow_nan=False).encode()
        tensor = {
            "name": self.input,
            "shape": list(x.shape),
            "datatype": "FP32",
            "data": x.reshape(-1).tolist(),
        }
        return json.dumps({"inputs": [tensor]}, allow_nan=False).encode()

    def answers(self, body: bytes, asked: int, earlier: bytes | None) -> list[bytes]:
        """One answer for each of the images asked about, as the ledger keeps it.

        Args:
            body: what the service said.
            asked: how many images.
            earlier: an answer about another image, if there is one.

        Raises:
            MalformedError: it is no such thing.
        """
        value = _strictly(body)
        rows = _predictions(value) if self.protocol is Protocol.V1 else _tensor(value, self.output)
        if len(rows) != asked:
            raise MalformedError(f"{len(rows)} answers for {asked} images")
        if self.access is Access.DECISIONS:
            return [_label(row) for row in rows]
        width = self.count or (0 if earlier is None else len(earlier) // 4)
        return _scores(rows, width)

    def logits(self, answers: Sequence[bytes]) -> Floats:
        """(N, K) scores, or 1 for the label and -1 for all others.

        Raises:
            InputError: a label is none of the classes.
        """
        if self.access is not Access.DECISIONS:
            rows = [np.frombuffer(answer, "<f4") for answer in answers]
            return np.stack(rows).astype(np.float32)
        # A single 1 among zeros would pass for probabilities.
        logits = np.full((len(answers), self.count), -1, np.float32)
        logits[np.arange(len(answers)), [self._class_of(answer) for answer in answers]] = 1
        return logits

    def _class_of(self, answer: bytes) -> int:
        label = json.loads(answer)
        if isinstance(label, str) and label in self.names:
            return self.names.index(label)
        if isinstance(label, int) and 0 <= label < self.count:
            return label
        raise InputError(
            f"{self.address} answered with the label {json.dumps(label)[:80]}, which is none of "
            f"its {self.count} classes; give them as classes=cat,dog,... in their order, or give "
            "another num_classes="
        )


def _strictly(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # of the encoding, too
        raise MalformedError(f"an answer that is not JSON ({error})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _predictions(value: Any) -> list[Any]:
    rows = value.get("predictions") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise MalformedError('an answer without a list "predictions"')
    return rows


def _tensor(value: Any, name: str) -> list[Any]:
    """The rows of one of the tensors that v2 answers with."""
    outputs = value.get("outputs") if isinstance(value, dict) else None
    tensors = [t for t in outputs if isinstance(t, dict)] if isinstance(outputs, list) else []
    if name:
        tensors = [t for t in tensors if t.get("name") == name]
    if not tensors:
        called = f" called {name}" if name else ""
        raise MalformedError(f'an answer whose "outputs" have no tensor{called}')
    shape, data = tensors[0].get("shape"), tensors[0].get("data")
    if not isinstance(data, list) or not isinstance(shape, list) or len(shape) not in (1, 2):
        raise MalformedError('an output without a "shape" (N, K) or (N) and a list "data"')
    if not all(type(n) is int and n > 0 for n in shape):
        raise MalformedError(f"an output of the shape {shape}")
    width = shape[1] if len(shape) == 2 else 1
    rows = data  # which may be nested
    if not any(isinstance(row, list) for row in data):
        rows = [data[first : first + width] for first in range(0, len(data), width)]
    if len(rows) != shape[0] or any(not isinstance(r, list) or len(r) != width for r in rows):
        raise MalformedError(f"an output of other data than its shape {shape} tells")
    return [row[0] for row in rows] if width == 1 else rows


def _label(value: Any) -> bytes:
    whole = int(value) if type(value) is float and value.is_integer() else value
    if type(whole) not in (int, str):
        raise MalformedError(
            "no label for an image (access=labels asks for whole numbers or names)"
        )
    return json.dumps(whole).encode()


def _scores(rows: list[Any], width: int) -> list[bytes]:
    """Each row as float32; all rows have the width, or that of the first if it is 0."""
    for row in rows:
        if not isinstance(row, list) or not all(type(v) in (int, float) for v in row):
            raise MalformedError("no list of scores for an image (give access=labels for labels)")
        if len(row) < 2 or len(row) != (width or len(rows[0])):
            wanted = f", not {width}" if width else "" if len(row) < 2 else ", not of all alike"
            raise MalformedError(f"{len(row)} scores for an image{wanted}")
    try:
        with np.errstate(over="ignore"):
            values = np.array(rows, np.float64).astype("<f4")
    except OverflowError:
        values = np.full(1, np.nan, "<f4")
    if not np.isfinite(values).all():
        raise MalformedError("scores that are not finite numbers of 32 bits")
    return [row.tobytes() for row in values]
