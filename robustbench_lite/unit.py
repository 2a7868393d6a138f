"""A unit of work: one attack on one model on one slice of the samples, and its file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from PIL import Image
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.evidence import Evidence, evidence_from
from robustbench_lite.identity import (
    described,
    described_plan,
    digest,
    digest_of_code,
    digest_of_model,
)
from robustbench_lite.judge import evaluate
from robustbench_lite.models import load_model
from robustbench_lite.registry import load_data
from robustbench_lite.results import Outcome, as_bytes
from robustbench_lite.running import Precision
from robustbench_lite.suite import Trial

FORMAT = 1
_EXAMPLES = 4  # adversarial examples kept of each unit, for galleries
_KEPT_BYTES = 60_000  # of an image; larger ones are not kept
_FIELDS = (
    *("label", "correct", "robust", "size", "queries", "backwards"),
    *("attack", "error", "gap", "reached", "trace"),
)


@dataclass(frozen=True, eq=False)
class Unit:
    """What there is to do; a value that can be sent to another process.

    Attributes:
        model: a spec for `load_model`, or the classifier itself.
        model_name: what tables call it.
        model_digest: of its weights, settings and code.
        data: a spec for `load_data`, or the samples themselves.
        ids: which samples.
        trial: the attack and its threat.
        seed: of all random numbers.
        precision: of the search.
        batch_size: samples attacked side by side; None for what a probe finds.
        device: where to compute.
        compiled: search on a compiled copy.
    """

    model: str | Classifier
    model_name: str
    model_digest: str
    data: str | Dataset
    ids: tuple[str, ...]
    trial: Trial
    seed: int
    precision: Precision = Precision.FLOAT32
    batch_size: int | None = 256
    device: str = "cpu"
    compiled: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", digest(self.decides()))

    def decides(self) -> dict[str, Any]:
        """Everything that decides what comes out, as JSON's types."""
        attack, threat = self.trial.attack, self.trial.threat
        return {
            "format": FORMAT,
            "model": self.model_name,
            "model_digest": self.model_digest,
            "attack": described_plan(attack, threat),
            "code": digest_of_code(attack, threat),
            "threat": described(threat),
            "samples": list(self.ids),
            "seed": self.seed,
            "precision": str(self.precision),
        }

    def __str__(self) -> str:
        return f"{self.model_name} {self.trial.name}"


def compute(unit: Unit) -> bytes:
    """Attack, and put what was found in lines: what decided it, the findings, a line a sample.

    Raises:
        RblError: the model or the data cannot be used.
    """
    model = unit.model
    if isinstance(model, str):
        model = _model(model, unit.model_digest)
    model = model.to(unit.device)
    data = _data(unit.data) if isinstance(unit.data, str) else unit.data
    part = data.take(_rows_of(data, unit.ids))
    outcome = evaluate(
        model,
        unit.trial.attack,
        unit.trial.threat,
        part,
        seed=unit.seed,
        batch_size=unit.batch_size,
        precision=unit.precision,
        compiled=unit.compiled,
    )
    return _lines(unit, outcome, part)


@dataclass(frozen=True)
class Found:
    """What a unit's file says.

    Attributes:
        evidence: for doubts.
        records: one a sample; the fields of Record, shortened: what is not there is None or empty.
        examples: some adversarial examples, with 8-bit images as base64 PNG.
        seconds: wall time.
        versions: what computed it.
    """

    evidence: Evidence
    records: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    seconds: float
    versions: dict[str, str]


def found_in(content: bytes) -> Found:
    """What `compute` wrote."""
    lines = content.splitlines()
    head = json.loads(lines[1])
    clock = json.loads(lines[-1])
    last = 2 + head["records"]
    return Found(
        evidence=evidence_from(head["evidence"]),
        records=json.loads(b"[" + b",".join(lines[2:last]) + b"]"),
        examples=[json.loads(line) for line in lines[last:-1]],
        seconds=clock["seconds"],
        versions=clock["versions"],
    )


def _lines(unit: Unit, outcome: Outcome, data: Dataset) -> bytes:
    # A copy of a sample that is attacked without the first has the first one's id in the records.
    rows = [
        {"id": sample}
        | {k: v for k in _FIELDS if (v := getattr(r, k)) is not None and v not in ("", ())}
        for sample, r in zip(unit.ids, outcome.records, strict=True)
    ]
    head = {"evidence": outcome.evidence.to_json(), "records": len(rows)}
    clock = {"seconds": round(outcome.seconds, 3), "versions": versions()}
    every = [unit.decides(), head, *rows, *_examples(outcome, data), clock]
    return b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in every)


def _examples(outcome: Outcome, data: Dataset) -> Iterator[dict[str, Any]]:
    broken = [i for i, r in enumerate(outcome.records) if r.correct and not r.robust and r.attack]
    if not broken or data.x[0].numel() > _KEPT_BYTES or data.x.shape[1] not in (1, 3):
        return
    rounded, _ = as_bytes(outcome, data)
    for i in broken[:_EXAMPLES]:
        record = outcome.records[i]
        yield {
            "id": record.id,
            "label": record.label,
            "reached": record.reached,
            "size": record.size,
            "image": _png((data.x[i] * 255).round()),
            "adversarial": _png(rounded[i]),
        }


def _png(image: Tensor) -> str:
    """Base64 of an image (C, H, W) of whole numbers up to 255."""
    pixels = image.byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def versions() -> dict[str, str]:
    """What computes here."""
    return {name: version(name) for name in ("robustbench-lite", "torch", "numpy")}


@lru_cache(maxsize=2)
def _model(spec: str, weights: str) -> Classifier:
    model = load_model(spec)
    if digest_of_model(model) != weights:
        raise InputError(f"model {spec!r} has changed meanwhile; start the benchmark again")
    return model


@lru_cache(maxsize=2)
def _data(spec: str) -> Dataset:
    return load_data(spec)


def _rows_of(data: Dataset, ids: tuple[str, ...]) -> list[int]:
    place = {sample: row for row, sample in enumerate(data.ids)}
    lost = [sample for sample in ids if sample not in place]
    if lost:
        raise InputError(
            f"data {data.name!r} has no sample {lost[0]} any more; start the benchmark again"
        )
    return [place[sample] for sample in ids]
