"""`rbl bench` and `rbl merge`: run a suite, remember every outcome, go on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import names_of, options, subjects, threats
from robustbench_lite.errors import IncompleteError, InputError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustbench_lite.executor import Executor
    from robustbench_lite.run import Entry, Tally
    from robustbench_lite.running import Precision
    from robustbench_lite.suite import Suite

_SHOWN = 3


def bench(
    models: Annotated[
        str,
        typer.Option(
            "--models", "-m", help="Names, files or patterns as mnist-*, separated by commas."
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Argument(help="A registered suite or a .toml file.", show_default="the verdict"),
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option("--attacks", help="Instead of a suite: attacks, separated by commas."),
    ] = None,
    effort: options.Effort = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that remembers.")] = Path(
        "runs"
    ),
    data: subjects.Data = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    threat: options.ThreatName = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Samples to evaluate.", show_default="the suite's")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Seed of every random number.", show_default="the suite's"),
    ] = None,
    slice_size: Annotated[
        int | None,
        typer.Option("--slice", help="Samples a unit of work.", show_default="the suite's"),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Do part i of N only, as 1/4; rbl merge joins the folders.",
            show_default="from SLURM, Kubernetes or torchrun",
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option("--executor", help="local, or ray for a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Units at a time: processes of this machine, one a GPU, or tasks on Ray.",
            show_default="1; on Ray as many as it holds",
        ),
    ] = None,
    batch_size: options.Width = "256",
    device: options.Device = "auto",
    precision: options.PrecisionName = "float32",
    compiled: options.Compiled = False,
) -> None:
    """Run a suite on several models and rank them.

    Every outcome is stored in --out. The same command again goes on where it
    stopped and computes nothing twice; a changed weight, image, setting or
    seed is computed anew.
    """
    for value, name in ((n, "--n"), (slice_size, "--slice"), (workers, "--workers")):
        if value is not None:
            options.positive(value, name)
    part = _shard(shard)
    width, rounding = options.width_of(batch_size), options.precision_of(precision)
    distance = None if eps is None else options.number(eps, "--eps")
    specs = names_of.split(models, "--models")
    by_hand = {"--attacks": attacks, "--norm": norm, "--threat": threat, "--effort": effort}
    for option, text in by_hand.items():
        if suite is not None and text is not None:
            raise InputError(
                f"{option} and the suite {suite!r} say both what to run; leave out one"
            )
    if executor not in ("local", "ray"):
        raise InputError(f"--executor {executor!r} is unknown; give local or ray")

    from dataclasses import replace

    from robustbench_lite.cli import boards, progress, screen
    from robustbench_lite.data import Dataset
    from robustbench_lite.leaderboard import boards_in
    from robustbench_lite.run import Contestant, entry_of, run
    from robustbench_lite.store import Store

    where = options.device_of(device)
    chosen = None if suite is None else _suite(suite)
    if chosen is not None and distance is not None:
        chosen = chosen.at(distance)
    changes: dict[str, int | str | Precision | None] = {
        "n": n,
        "seed": seed,
        "slice": slice_size,
        "data": data,
        "precision": None if rounding == "float32" else rounding,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    entries: list[Entry] = []
    names: set[str] = set()
    for spec, exactly in names_of.matching(specs).items():
        classifier, profile = subjects.model_of(spec, where)
        if classifier.name in names:
            raise InputError(
                "--models has two models whose cards give them the same name; change one card's "
                "name"
            )
        names.add(classifier.name)
        if chosen is None:
            asked = (
                threats.threat_of(norm, distance, profile)
                if threat is None
                else threats.other_than_a_norm(threat, norm, eps)
            )
            task = _by_hand(attacks, effort, asked)
        else:
            task = chosen
        task = replace(task, **given)  # type: ignore[arg-type]  # checked by name above
        source = task.data or profile.test_data
        whole = subjects.opened(source or None, profile, classifier.classes)
        samples = whole if isinstance(whole, Dataset) else whole.sample(task.n, task.seed).load()
        # Another process would find other labels, or images of another shape.
        again = source if whole is samples and classifier.classes is None else None
        try:
            entries.append(
                entry_of(
                    task,
                    Contestant(classifier, profile, spec),
                    samples,
                    again,
                    batch_size=width,
                    device=str(where),
                    compiled=compiled,
                )
            )
        except UnsupportedError as error:
            if exactly:
                raise
            screen.note(f"{spec} is left out: {error}")
    if not entries:
        raise InputError("none of --models can take part; give another suite or other models")
    store = Store(out)
    with progress.working(suite or "bench") as report:
        tally = run(entries, store, _executor(executor, workers), shard=part, report=report)
    boards.show(boards_in(store, {entry.key for entry in entries}), time=True, partly=part[1] > 1)
    _complain(tally, out)


def _by_hand(attacks: str | None, effort: str | None, asked: object) -> Suite:
    """The suite of --attacks, or of the verdict, in one threat."""
    from robustbench_lite.suite import Suite, Trial
    from robustbench_lite.threat import Threat

    assert isinstance(asked, Threat)
    names = names_of.split(attacks or options.VERDICT, "--attacks")
    plans = {
        name: options.plan_of(name, values)
        for name, values in options.with_effort(names, effort).items()
    }
    threats.check_supported(plans, asked)
    trials = tuple(Trial(name, plan, asked) for name, plan in plans.items())
    return Suite(", ".join(names), {"": trials})


def _suite(name: str) -> Suite:
    from robustbench_lite.suite import load_suite
    from robustbench_lite.suite_file import read_suite

    return read_suite(Path(name)) if name.endswith(".toml") else load_suite(name)


def _executor(name: str, workers: int | None) -> Executor:
    from robustbench_lite.executor import InProcess, Processes

    if name == "ray":
        from robustbench_lite.on_ray import OnRay

        return OnRay(workers)
    return InProcess() if workers is None or workers == 1 else Processes(workers)


_SCHEDULERS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", None),  # a Kubernetes indexed job
    ("RANK", "WORLD_SIZE", None),  # torchrun
)


def _shard(text: str | None) -> tuple[int, int]:
    """The part of --shard, or that a scheduler gave this process; the whole without either."""
    if text is None:
        for index, count, first in _SCHEDULERS:
            values = [os.environ.get(index, ""), os.environ.get(count, "")]
            start = os.environ.get(first, "0") if first else "0"
            if all(value.isdecimal() for value in (*values, start)):
                text = f"{int(values[0]) - int(start) + 1}/{values[1]}"
                break
        else:
            return 1, 1
    number, slash, parts = text.partition("/")
    if not slash or not number.isdecimal() or not parts.isdecimal():
        raise InputError(f"--shard {text!r} is not i/N; write the first of four parts as 1/4")
    if not 1 <= int(number) <= int(parts):
        raise InputError(f"--shard {text!r} does not exist; give 1/{parts} to {parts}/{parts}")
    return int(number), int(parts)


def _complain(tally: Tally, out: Path) -> None:
    """Say which samples have no result.

    Raises:
        IncompleteError: there are some.
    """
    if not tally.failed:
        return
    units: Sequence[tuple[str, str]] = [(str(unit), why) for unit, why in tally.failed.items()]
    lost = [sample for unit in tally.failed for sample in unit.ids]
    what, why = units[0]
    named = ", ".join(dict.fromkeys(lost[:_SHOWN])) + (", ..." if len(lost) > _SHOWN else "")
    more = f" and {len(units) - 1} other units" if len(units) > 1 else ""
    raise IncompleteError(
        f"{what}{more} failed ({why.rstrip('.')}), so that {len(lost)} samples have no result "
        f"({named}); what is in {out} is sound: start again to try them once more"
    )


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders that rbl bench wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to copy to.")],
) -> None:
    """Join folders of results, whatever the order; what is there twice must be the same."""
    from robustbench_lite.cli import screen
    from robustbench_lite.store import Store
    from robustbench_lite.store import merge as joined

    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give folders that rbl bench wrote")
    counts = joined([Store(folder) for folder in folders], Store(out))
    screen.console().print(
        f"{out}: {counts['entries']} rows of {counts['units']} units; see rbl leaderboard {out}"
    )
