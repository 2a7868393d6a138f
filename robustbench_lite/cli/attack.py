"""`rbl attack`: how robust is one model?"""

from __future__ import annotations

import io
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files, options, subjects, threats
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset
    from robustbench_lite.results import Outcome


def attack(
    model: subjects.ModelName,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            "-a",
            help="An attack; repeat for the worst case over several.",
            show_default=options.VERDICT,
        ),
    ] = None,
    effort: options.Effort = None,
    weights: subjects.Weights = None,
    num_classes: subjects.NumClasses = None,
    normalize: subjects.Normalize = None,
    resize: subjects.Resize = None,
    trust_remote_code: subjects.TrustRemoteCode = False,
    data: subjects.Data = None,
    class_map: subjects.ClassMap = None,
    indices: subjects.Indices = None,
    norm: options.NormName = None,
    eps: Annotated[
        str | None,
        typer.Option(
            "--eps",
            help="Largest distance, as 0.3 or 8/255; several, as 0,2/255,4/255, give a curve.",
            show_default="the model's",
        ),
    ] = None,
    threat: options.ThreatName = None,
    access: Annotated[
        str,
        typer.Option("--access", help="What may be seen: decisions, scores or gradients."),
    ] = "gradients",
    queries: Annotated[
        int | None, typer.Option("--queries", help="Forward passes a sample at the most.")
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option("--surrogate", help="Search on this model, then try it on --model."),
    ] = None,
    values: options.AttackSettings = None,
    restarts: Annotated[
        int, typer.Option("--restarts", help="Tries with other random numbers.")
    ] = 1,
    n: options.Samples = 1000,
    stratified: subjects.Stratified = False,
    batch_size: options.Width = "256",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    targeted: options.TargetName = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Equal bit by bit for every batch size, at some cost.")
    ] = False,
    precision: options.PrecisionName = "float32",
    compiled: options.Compiled = False,
    naive: Annotated[
        bool, typer.Option("--naive", help="Attack without knowing of the defenses after +.")
    ] = False,
    json_file: options.JsonFile = None,
    save: Annotated[
        Path | None,
        typer.Option("--save-adversarials", help="Write the adversarial examples to this .npz."),
    ] = None,
) -> None:
    """Attack a classifier and print how much of its accuracy is left.

    Data, norm and eps come from the model's card where they are not given; --threat asks for
    something else than a norm. Without --attack it is the verdict: AutoAttack's answer, or a lower
    one, at a small part of its time.
    """
    files.check_writable(json_file, "--json")
    files.check_writable(save, "--save-adversarials")
    if json_file is not None and json_file == save:
        raise InputError(f"--json and --save-adversarials are both {save}; give two files")
    options.positive(n, "--n")
    width, rounding = options.width_of(batch_size), options.precision_of(precision)
    distances = None if eps is None else options.numbers(eps, "--eps")
    options.positive(restarts, "--restarts")
    given_access = threats.access_of(access)
    if queries is not None:
        options.positive(queries, "--queries")
    given = options.settings(values, "--set")
    attacks = attacks or [options.VERDICT]
    efforts = options.with_effort(attacks, effort)

    from robustbench_lite.card import Card
    from robustbench_lite.cli import progress, screen
    from robustbench_lite.data import Dataset
    from robustbench_lite.outcomes import worst_case
    from robustbench_lite.stream import Stream
    from robustbench_lite.sweep import sweep

    plans = [options.plan_of(name, efforts[name] | given, restarts) for name in attacks]
    spec = subjects.spec_of(
        model,
        weights=weights,
        num_classes=num_classes,
        normalize=normalize,
        resize=resize,
        trust_remote_code=trust_remote_code,
    )
    classifier, profile = subjects.model_of(spec, options.device_of(device), naive=naive)
    if naive and not classifier.naive:
        raise InputError(f"--naive: {model} has no defense to ignore; leave it out, or add +jpeg")
    goal = options.goal_of(targeted, profile)
    by_name = dict(zip(attacks, plans, strict=True))  # the same name is the same plan
    source = None if surrogate is None else subjects.model_of(surrogate, classifier.device)[0]
    asked = threats.threats_of(norm, distances, threat, profile, given_access, queries)
    threats.check_supported(by_name, asked[-1])
    if source is None:
        threats.check_access(by_name, asked[-1], classifier)
    whole = subjects.opened(data, profile, classifier.classes, class_map=class_map, indices=indices)
    samples = whole.sample(n, seed, stratified=stratified)
    if isinstance(samples, Stream) and (save is not None or samples.small()):
        samples = samples.load()
    curves = []
    for name, plan in zip(attacks, plans, strict=True):
        with progress.watching(name) as report:
            curves.append(
                sweep(
                    classifier,
                    plan,
                    asked,
                    samples,
                    goal=goal,
                    surrogate=source,
                    seed=seed,
                    batch_size=width,
                    exact=exact,
                    precision=rounding,
                    compiled=compiled,
                    report=report,
                )
            )
    outcomes = [outcome for curve in curves for outcome in curve]
    rows = [(name, curve[-1]) for name, curve in zip(attacks, curves, strict=True)]
    worst = [worst_case(at_eps) for at_eps in zip(*curves, strict=True)]
    if len(curves) > 1:
        rows.append(("worst case", worst[-1]))
    written: dict[Path, bytes] = {}
    if json_file is not None:
        written[json_file] = as_json(outcomes)
    if save is not None and isinstance(samples, Dataset):
        written[save] = _archive(rows[-1][1], samples, classifier)
    files.write_whole(written)
    if profile.summary and not isinstance(profile, Card):  # what a model from elsewhere came to
        screen.console().print(f"{spec}: {profile.summary}", soft_wrap=True)
    title = screen.attack_title(rows[-1][1], curve=len(asked) > 1)
    if len(asked) > 1:
        screen.show_table(title, screen.curve_table(attacks, curves, worst))
    else:
        screen.show_table(title, screen.attack_table(rows))
    screen.show_doubts([*outcomes, *worst])


def as_json(outcomes: Sequence[Outcome]) -> bytes:
    """A strict JSON list of what was found, with one entry an outcome."""
    entries = [o.to_json() | {"versions": versions()} for o in outcomes]
    return json.dumps(entries, indent=1, allow_nan=False).encode()


def versions() -> dict[str, str]:
    """What computed the figures."""
    names = ("robustbench-lite", "torch", "torchvision", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _archive(outcome: Outcome, data: Dataset, classifier: Classifier) -> bytes:
    """The npz: float images, 8-bit images, and which of either are adversarial examples."""
    import numpy as np
    import torch

    from robustbench_lite.inference import predict
    from robustbench_lite.results import as_bytes
    from robustbench_lite.running import Settings

    rounded, inside = as_bytes(outcome, data)
    broken = torch.tensor([r.correct and not r.robust and r.attack != "" for r in outcome.records])
    settings = Settings(device=classifier.device)
    labels = predict(classifier, rounded / 255, settings).argmax(1)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        x=rounded.numpy().transpose(0, 2, 3, 1),
        y=data.y.numpy(),
        x_float=outcome.adversarials.numpy(),
        adversarial=broken.numpy(),
        adversarial_8bit=(broken & inside & (labels != data.y)).numpy(),
        ids=np.array([r.id for r in outcome.records]),
    )
    return file.getvalue()
