"""`rbl explain`: what an attack changes, and where the classifier looks before and after."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files, options, subjects, threats
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from robustbench_lite.explanation import Explanation


def explain(
    model: subjects.ModelName,
    attack: Annotated[str, typer.Option("--attack", "-a", help="An attack; rbl list attacks.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write, .png.")],
    data: subjects.Data = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    threat: options.ThreatName = None,
    values: options.AttackSettings = None,
    samples: Annotated[int, typer.Option("--samples", help="Rows of the picture.")] = 4,
    n: Annotated[int, typer.Option("--n", help="Samples to attack and to choose from.")] = 100,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    targeted: options.TargetName = None,
) -> None:
    """Draw image, adversarial example, perturbation and where the classifier looks.

    The first samples that the attack broke are shown, others only if it broke too few. Where a
    classifier looks is the roll-out of its attention if it has one, else the gradient of its
    decision, else what it loses when a square is hidden.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out} must end in .png; rename it")
    files.check_writable(out, "--out")
    options.positive(samples, "--samples")
    options.positive(n, "--n")
    options.positive(batch_size, "--batch-size")
    distance = None if eps is None else options.number(eps, "--eps")
    given = options.settings(values, "--set")

    from robustbench_lite.cli import progress, screen
    from robustbench_lite.explanation import explain as look
    from robustbench_lite.judge import evaluate
    from robustbench_lite.picture import draw

    plan = options.plan_of(attack, given)
    classifier, profile = subjects.model_of(model, options.device_of(device))
    goal = options.goal_of(targeted, profile)
    other = None if threat is None else threats.other_than_a_norm(threat, norm, eps)
    asked = other or threats.threat_of(norm, distance, profile)
    threats.check_supported({attack: plan}, asked)
    threats.check_access({attack: plan}, asked, classifier)
    chosen = subjects.data_of(data, n, seed, profile, classifier.classes)
    with progress.watching(attack) as report:
        outcome = evaluate(
            classifier,
            plan,
            asked,
            chosen,
            goal=goal,
            seed=seed,
            batch_size=batch_size,
            report=report,
        )
    found = look(classifier, chosen, outcome, samples, width=batch_size)
    names = classifier.classes or chosen.classes
    picture = io.BytesIO()
    title = f"{outcome.model} under {attack}, {screen.distance(outcome.threat)}"
    draw(found, title, names).save(picture, "png")
    files.write_whole({out: picture.getvalue()})
    screen.show_table(screen.attack_title(outcome), screen.attack_table([(attack, outcome)]))
    screen.show_doubts([outcome])
    screen.console().print()
    screen.show_table(f"{out}: {found.how}", _table(found, names))


def _table(found: Explanation, names: tuple[str, ...] | None) -> Table:
    from rich.table import Table

    from robustbench_lite.cli import screen

    table = Table(box=None, pad_edge=False)
    for head in ("sample", "class", "before", "after"):
        table.add_column(head, no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for place, before, after in zip(
        found.which, found.before.tolist(), found.after.tolist(), strict=True
    ):
        record = found.outcome.records[place]
        told = (record.label, before, after)
        shown = [str(label) if names is None else names[label] for label in told]
        broken = record.correct and not record.robust
        table.add_row(record.id, *shown, screen.size(record.size if broken else None))
    return table
