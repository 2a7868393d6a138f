"""`rbl leaderboard`: several models under several attacks, ranked by the worst case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files, options, threats
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from robustbench_lite.leaderboard import Row


def leaderboard(
    models: Annotated[
        str,
        typer.Option("--models", help="Names, files or patterns as mnist-*, separated by commas."),
    ],
    attacks: Annotated[
        str, typer.Option("--attacks", help="Names, separated by commas.")
    ] = options.VERDICT,
    effort: options.Effort = None,
    data: options.Data = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    threat: options.ThreatName = None,
    n: options.Samples = 1000,
    batch_size: options.Width = "256",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.PrecisionName = "float32",
    compiled: options.Compiled = False,
    json_file: options.JsonFile = None,
) -> None:
    """Attack several models and rank them by the per-sample worst case."""
    files.check_writable(json_file, "--json")
    options.positive(n, "--n")
    width, rounding = options.width_of(batch_size), options.precision_of(precision)
    distance = None if eps is None else options.number(eps, "--eps")
    names, specs = _split(attacks, "--attacks"), _split(models, "--models")
    efforts = options.with_effort(names, effort)

    from robustbench_lite.cli import screen
    from robustbench_lite.cli.attack import as_json
    from robustbench_lite.judge import evaluate
    from robustbench_lite.leaderboard import ranked

    plans = [options.plan_of(name, settings) for name, settings in efforts.items()]
    where = options.device_of(device)
    entries = [options.model_of(spec, where) for spec in _matching(specs)]
    if len({classifier.name for classifier, _ in entries}) < len(entries):
        raise InputError(
            "--models has two models whose cards give them the same name; change one card's name"
        )
    other = None if threat is None else threats.other_than_a_norm(threat, norm, eps)
    jobs = [
        (
            classifier,
            other or threats.threat_of(norm, distance, profile),
            options.data_of(data, n, seed, profile),
        )
        for classifier, profile in entries
    ]
    if len({(samples.ids, asked) for _, asked, samples in jobs}) > 1:
        raise InputError(
            "the models' cards name different data or threats, which cannot be ranked together; "
            "give --data, --norm and --eps"
        )
    by_name = dict(zip(names, plans, strict=True))
    threats.check_supported(by_name, jobs[0][1])
    for classifier, asked, _ in jobs:
        threats.check_access(by_name, asked, classifier)
    outcomes = []
    for classifier, asked, samples in jobs:
        for name, plan in zip(names, plans, strict=True):
            with screen.watching(f"{classifier.name} {name}") as report:
                outcomes.append(
                    evaluate(
                        classifier,
                        plan,
                        asked,
                        samples,
                        seed=seed,
                        batch_size=width,
                        precision=rounding,
                        compiled=compiled,
                        report=report,
                    )
                )
    if json_file is not None:
        files.write_whole({json_file: as_json(outcomes)})
    rows = ranked(outcomes)
    first = rows[0].worst
    threatened, numbers = screen.distance(first.threat), screen.numbers_of(first)
    title = f"{first.data}, {first.n} samples, {threatened}, {numbers}"
    screen.show_table(title, _table(rows, names))
    screen.show_doubts([row.worst for row in rows])


def _split(text: str, option: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError(f"{option} is empty; name one or more, separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"{option} names something twice; name each once")
    return names


def _matching(specs: Sequence[str]) -> list[str]:
    """The models of names and patterns, each once."""
    from fnmatch import fnmatchcase

    from robustbench_lite.models import is_source
    from robustbench_lite.registry import Kind, registered

    found: dict[str, None] = {}
    for spec in specs:
        name, plus, defenses = spec.partition("+")
        if "*" not in name:
            found[spec] = None
            continue
        near = [n for n in registered(Kind.MODELS) if fnmatchcase(n, name)]
        known = [n for n in near if not is_source(n)]
        if not known:
            raise InputError(f"--models {spec!r} matches no model; see rbl list models")
        found |= {f"{n}{plus}{defenses}": None for n in known}
    return list(found)


def _table(rows: Sequence[Row], attacks: Sequence[str]) -> Table:
    from rich.table import Table

    from robustbench_lite.cli import screen

    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold", min_width=16)
    several = len(attacks) > 1
    shares = [*(f"{a} %" for a in attacks), *(["worst %"] if several else [])]
    for name in ("clean %", *shares, "95 % CI", "trust", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, row in enumerate(rows, 1):
        table.add_row(
            str(rank),
            row.model,
            screen.percent(row.worst.clean_accuracy),
            *(screen.percent(o.robust_accuracy) for o in row.outcomes),
            *([screen.percent(row.worst.robust_accuracy)] if several else []),
            screen.interval(*row.worst.robust_ci95),
            screen.trust(row.worst.trust),
            f"{row.worst.seconds:.1f}",
        )
    return table
