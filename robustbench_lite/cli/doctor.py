"""`rbl doctor`: do a model and data belong together?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import options, subjects
from robustbench_lite.cli.check import NOT_TRUSTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from robustbench_lite.card import Profile
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.diagnosis import Finding


def doctor(
    model: Annotated[str, typer.Argument(help="As for rbl attack --model.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Argument(help="As for rbl attack --data.", show_default="the model's"),
    ] = None,
    weights: subjects.Weights = None,
    num_classes: subjects.NumClasses = None,
    normalize: subjects.Normalize = None,
    resize: subjects.Resize = None,
    trust_remote_code: subjects.TrustRemoteCode = False,
    class_map: subjects.ClassMap = None,
    indices: subjects.Indices = None,
    n: Annotated[int, typer.Option("--n", help="Samples to look at.")] = 256,
    stratified: subjects.Stratified = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Find out whether a model and data belong together, before anything is attacked.

    Looks at shapes, ranges, the order of the classes, normalisation, randomness, gradients, speed
    and memory. Ends with exit code 3 where figures of this pair would say nothing.
    """
    options.positive(n, "--n")
    spec = subjects.spec_of(
        model,
        weights=weights,
        num_classes=num_classes,
        normalize=normalize,
        resize=resize,
        trust_remote_code=trust_remote_code,
    )

    from robustbench_lite.cli import progress, screen
    from robustbench_lite.data import Dataset
    from robustbench_lite.diagnosis import diagnosed
    from robustbench_lite.trust import Trust, least_of

    classifier, profile = subjects.model_of(spec, options.device_of(device))
    whole = subjects.opened(
        data, profile, classifier.classes, class_map=class_map, indices=indices, strictly=False
    )
    drawn = whole.sample(n, seed, stratified=stratified)
    samples = drawn if isinstance(drawn, Dataset) else drawn.load()
    with progress.waiting("looking at it"):
        findings = [_of_model(classifier, profile), *diagnosed(classifier, samples, seed)]
    findings.append(_of_memory())
    title = f"{classifier.name} on {samples.name}, {len(samples)} samples, seed {seed}"
    screen.show_table(title, _table(findings))
    if least_of(f.trust for f in findings) is Trust.FAIL:
        raise typer.Exit(NOT_TRUSTED)


def _of_model(classifier: Classifier, profile: Profile) -> Finding:
    from robustbench_lite.diagnosis import Finding

    told = f"{profile.parameters:,} parameters, gives {classifier.access.name.lower()}"
    return Finding("model", f"{told}; {profile.summary}" if profile.summary else told)


def _of_memory() -> Finding:
    """The most that this process held so far."""
    import resource
    import sys

    import torch

    from robustbench_lite.diagnosis import Finding

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes here
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    told = f"{peak:,.0f} MiB at the most"
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        told += f", {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB on the GPU"
    return Finding("memory", told)


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("looked at", no_wrap=True)
    table.add_column("trust", no_wrap=True)
    table.add_column("found")
    for finding in findings:
        told = f"{finding.found}; {finding.remedy}" if finding.remedy else finding.found
        table.add_row(finding.about, str(finding.trust), told)
    return table
