"""`rbl certify`: how far can a classifier prove its answers?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files, options, subjects
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from robustbench_lite.certificate import Certificate


def certify(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A model that proves its answers: NAME+randomized-smoothing."
        ),
    ],
    data: subjects.Data = None,
    eps: Annotated[
        str, typer.Option("--eps", help="Radii of the table, separated by commas.")
    ] = "0,0.25,0.5,0.75,1,1.5,2",
    n: options.Samples = 1000,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json_file: options.JsonFile = None,
) -> None:
    """Prove how far answers hold, and print the certified accuracy over the radius.

    A sample counts at a radius if its class is right and proven to be the answer everywhere within
    it; where the classifier abstains it counts nowhere.
    """
    files.check_writable(json_file, "--json")
    options.positive(n, "--n")
    options.positive(batch_size, "--batch-size")
    radii = options.numbers(eps, "--eps")
    if float("inf") in radii:
        raise InputError("--eps inf is no radius that can be proven; give numbers such as 0,0.5,1")

    from robustbench_lite.certificate import certify as prove
    from robustbench_lite.cli import progress, screen

    classifier, profile = subjects.model_of(model, options.device_of(device))
    samples = subjects.data_of(data, n, seed, profile, classifier.classes)
    with progress.counting(model) as report:
        proven = prove(classifier, samples, seed=seed, batch_size=batch_size, report=report)
    if json_file is not None:
        files.write_whole({json_file: _as_json(proven, radii)})
    title = f"{proven.model} on {proven.data}, {proven.n} samples, {proven.norm}, seed {seed}"
    screen.show_table(title, _table(proven, radii))
    out = screen.console()
    out.print(
        f"mean radius {proven.mean_radius:.3f}; abstained on {proven.abstained} of {proven.n}",
        soft_wrap=True,
    )
    if proven.confidence < 1:
        out.print(
            f"each proof holds with probability {100 * proven.confidence:g} % or more",
            soft_wrap=True,
        )


def _table(proven: Certificate, radii: Sequence[float]) -> Table:
    from rich.table import Table

    from robustbench_lite.cli import screen

    table = Table(box=None, pad_edge=False)
    for head in ("radius", "certified %", "95 % CI"):
        table.add_column(head, justify="right", no_wrap=True)
    for radius in radii:
        share, interval = proven.accuracy(radius), proven.ci95(radius)
        table.add_row(f"{radius:g}", screen.percent(share), screen.interval(*interval))
    return table


def _as_json(proven: Certificate, radii: Sequence[float]) -> bytes:
    from robustbench_lite.cli.attack import versions

    rows = zip(
        proven.ids,
        proven.truth.tolist(),
        proven.labels.tolist(),
        proven.radius.tolist(),
        strict=True,
    )
    entry = {
        "model": proven.model,
        "data": proven.data,
        "n": proven.n,
        "seed": proven.seed,
        "norm": str(proven.norm),
        "confidence": proven.confidence,
        "abstained": proven.abstained,
        "mean_radius": proven.mean_radius,
        "certified": [
            {"eps": r, "accuracy": proven.accuracy(r), "ci95": proven.ci95(r)} for r in radii
        ],
        "samples": [
            {"id": i, "label": truth, "proven": label if label >= 0 else None, "radius": radius}
            for i, truth, label, radius in rows
        ],
        "versions": versions(),
    }
    return json.dumps(entry, indent=1, allow_nan=False).encode()
