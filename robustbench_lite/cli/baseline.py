"""`rbl baseline`: put on record how a model does, for `rbl check` to compare with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from robustbench_lite.cli import files, gating, options, subjects
from robustbench_lite.errors import InputError

app = typer.Typer(help="Put on record how robust a model is, for rbl check to compare with.")

File = Annotated[Path, typer.Option("--baseline", "-b", help="The baseline's file.")]


@app.command("update")
def update(
    model: subjects.ModelName,
    baseline: File,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is put on record.")],
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", "-a", help="An attack; repeat for more.", show_default="verdict"),
    ] = None,
    effort: options.Effort = "quick",
    values: options.AttackSettings = None,
    data: subjects.Data = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    threat: options.ThreatName = None,
    n: options.Samples = 1000,
    seed: options.Seed = 0,
    batch_size: options.Width = "256",
    device: options.Device = "auto",
    allow_ci: Annotated[
        bool, typer.Option("--allow-ci", help="Also where the variable CI is set.")
    ] = False,
) -> None:
    """Attack the model and write what it withstood; the only command that writes a baseline."""
    files.check_writable(baseline, "--baseline")
    if not reason.strip():
        raise InputError("--reason is empty; say why the baseline changes")
    if os.environ.get("CI") and not allow_ci:
        raise InputError(
            "this is continuous integration, where a baseline is compared with and not changed; "
            "update it by hand, or give --allow-ci"
        )
    options.positive(n, "--n")
    width = options.width_of(batch_size)
    names = attacks or [options.VERDICT]
    asked = gating.Asked(
        attacks=names,
        values=options.settings(values, "--set"),
        effort=effort if options.VERDICT in names else None,
        norm=norm,
        eps=eps,
        threat=threat,
    )

    from robustbench_lite import baseline as file
    from robustbench_lite.cli import progress, screen
    from robustbench_lite.judge import evaluate

    try:
        before = file.read_baseline(baseline) if baseline.exists() else None
    except file.BaselineError:  # a damaged one is made anew
        before = None
    classifier, profile = subjects.model_of(model, options.device_of(device))
    trials = asked.trials(profile)
    source = data or profile.test_data
    whole = subjects.opened(source or None, profile, classifier.classes)
    samples = gating.ranked(whole, n, seed)
    outcomes = []
    for trial, _ in trials:
        with progress.watching(trial.name) as report:
            outcomes.append(
                evaluate(
                    classifier,
                    trial.attack,
                    trial.threat,
                    samples,
                    seed=seed,
                    batch_size=width,
                    report=report,
                )
            )
    told = [file.told_trial(trial, how) for trial, how in trials]
    made = file.baseline_of(classifier.name, source, told, outcomes, gating.note_of(reason))
    lines = ["a new baseline"]
    if before is not None:
        lines = file.changed(before, file.shortened(made))
    files.write_whole({baseline: file.baseline_text(made).encode()})
    rows = [(trial.name, o) for (trial, _), o in zip(trials, outcomes, strict=True)]
    screen.show_table(screen.attack_title(outcomes[0]), screen.attack_table(rows))
    for line in lines:
        screen.console().print(f"{baseline}: {line}", soft_wrap=True)
    screen.show_doubts(outcomes)


@app.command("show")
def show(
    baseline: Annotated[Path, typer.Argument(help="The baseline's file.")],
) -> None:
    """Show what a baseline says, who wrote it and why."""
    from rich.table import Table

    from robustbench_lite.baseline import read_baseline
    from robustbench_lite.cli import screen
    from robustbench_lite.stats import wilson

    found = read_baseline(baseline)
    n = len(found.ids)
    table = Table(box=None, pad_edge=False)
    table.add_column("measured", no_wrap=True)
    table.add_column("accuracy %", justify="right", no_wrap=True)
    table.add_column("95 % CI", justify="right", no_wrap=True)
    table.add_column("how", overflow="fold")
    how = {
        t["name"]: ", ".join(f"{k} {v}" for k, v in t["asked"].items() if v) for t in found.trials
    }
    for name, right in {"clean": found.clean, **found.robust}.items():
        share, ends = sum(right) / n, wilson(sum(right), n)
        told = how.get(name, "")
        table.add_row(name, screen.percent(share), screen.interval(*ends), told)
    title = f"{found.model} on {found.data}, {n} samples, seed {found.seed}"
    screen.show_table(title, table)
    note = found.note
    screen.console().print(
        f"{note.get('when')} by {note.get('by')}: {note.get('reason')}", soft_wrap=True
    )
