"""`rbl check`: is the model as robust as its baseline?"""

from __future__ import annotations

import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_lite.cli import files, gating, options, subjects
from robustbench_lite.errors import UNREADABLE_TOML, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robustbench_lite.checking import Checked
    from robustbench_lite.gate import Answer

FAILED, NOT_TRUSTED, UNDECIDED, INCOMPLETE = 1, 3, 4, 6
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "": 1}


class OnInconclusive(StrEnum):
    """What an undecided gate ends with."""

    PASS = "pass"
    FAIL = "fail"


def check(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model as it is now.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", "-b", help="What it is compared with.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A file with several checks.", show_default="rbl.toml"),
    ] = None,
    data: subjects.Data = None,
    margin: Annotated[
        str | None,
        typer.Option("--margin", help="The drop to be excluded: 2pt.", show_default="2pt"),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Chance of an error.", show_default="0.05")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="standard, strict or exact.", show_default="standard"),
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Stop as soon as it is decided.")
    ] = False,
    max_samples: Annotated[
        int | None, typer.Option("--max-samples", help="Look at no more than so many.")
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", help="Look no longer, as 90s or 5m.")
    ] = None,
    on_inconclusive: Annotated[
        OnInconclusive, typer.Option("--on-inconclusive", help="What then?")
    ] = OnInconclusive.PASS,
    batch_size: options.Width = "256",
    device: options.Device = "auto",
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary", help="Markdown for a pull request.", show_default="GitHub's, if there"
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="All figures.")] = None,
    trend: Annotated[
        Path | None, typer.Option("--trend", help="For github-action-benchmark.")
    ] = None,
    openmetrics: Annotated[
        Path | None, typer.Option("--openmetrics", help="For Prometheus and the like.")
    ] = None,
) -> None:
    """Compare a model with its baseline: PASS, FAIL or INCONCLUSIVE, sample by sample.

    Exit codes: 0 pass, 1 regression, 2 wrong use, 3 the figures cannot be
    trusted, 4 inconclusive (with --on-inconclusive fail), 5 no baseline or not
    comparable, 6 out of time.
    """
    outputs = {
        "--junit": junit,
        "--summary": summary,
        "--json": json_file,
        "--trend": trend,
        "--openmetrics": openmetrics,
    }
    for option, path in outputs.items():
        files.check_writable(path, option)
    given = [path for path in outputs.values() if path is not None]
    if len(set(given)) < len(given):
        raise InputError("two of the files to write are the same; give each its own")
    if max_samples is not None:
        options.positive(max_samples, "--max-samples")
    width = options.width_of(batch_size)
    limit = None if time_limit is None else _seconds(time_limit)
    pairs, settings = _asked(model, baseline, config)
    rule_values = {
        "margin": margin if margin is not None else settings.get("margin", "2pt"),
        "alpha": alpha if alpha is not None else settings.get("alpha", 0.05),
        "policy": policy if policy is not None else settings.get("policy", "standard"),
    }

    from robustbench_lite import gate_files
    from robustbench_lite.checking import checked, trust_of
    from robustbench_lite.cli import progress, screen
    from robustbench_lite.gate import Answer, Policy, Rule, overall
    from robustbench_lite.trust import Trust

    if rule_values["policy"] not in list(Policy):
        raise InputError(f"--policy {rule_values['policy']!r} is unknown; give {', '.join(Policy)}")
    rule = Rule(
        points(str(rule_values["margin"])),
        float(rule_values["alpha"]),
        Policy(rule_values["policy"]),
    )
    checks = [gating.check_of(spec, path, data, device) for spec, path in pairs]
    total = sum(min(max_samples or len(c.data), len(c.data)) for c in checks)
    done = 0
    with progress.counting("check") as report:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            report(done, total)

        found, late = checked(
            checks,
            rule,
            sequential=sequential,
            max_samples=max_samples,
            time_limit=limit,
            batch_size=width,
            report=advance,
        )
    threats = [[screen.distance(t.threat) for t in c.trials] for c in checks]
    texts = {
        junit: gate_files.as_junit(found, threats),
        summary: gate_files.as_markdown(found).encode(),
        json_file: gate_files.as_json(found).encode() + b"\n",
        trend: gate_files.as_trend(found).encode() + b"\n",
        openmetrics: gate_files.as_openmetrics(found).encode(),
    }
    files.write_whole({path: text for path, text in texts.items() if path is not None})
    _on_github(found)
    answer = overall([f for one in found for f in one.findings])
    _show(found, answer)
    screen.show_doubts(found)
    if late:
        screen.console().print(f"out of time after {done} of {total} samples", style="yellow")
    code = {Answer.FAIL: FAILED, Answer.PASS: 0, Answer.INCONCLUSIVE: 0}[answer]
    if trust_of(found) is Trust.FAIL:
        code = NOT_TRUSTED
    elif answer is Answer.INCONCLUSIVE and late:
        code = INCOMPLETE
    elif answer is Answer.INCONCLUSIVE and on_inconclusive is OnInconclusive.FAIL:
        code = UNDECIDED
    raise typer.Exit(code)


def _asked(
    model: str | None, baseline: Path | None, config: Path | None
) -> tuple[list[tuple[str, Path]], dict[str, Any]]:
    """The pairs to be checked, and the settings of the file."""
    if model is not None and baseline is not None and config is None:
        return [(model, baseline)], {}
    if (model is None) != (baseline is None):
        raise InputError("--model and --baseline go together; give both, or --config")
    path = config or Path("rbl.toml")
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give --model and --baseline, or write it with rbl init"
        )
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except UNREADABLE_TOML as error:
        raise InputError(f"{path} cannot be read ({error}); correct it") from error
    gate, entries = told.get("gate", {}), told.get("checks", [])
    tables = [gate, *entries] if isinstance(entries, list) else [entries]
    if not all(isinstance(t, dict) for t in tables) or not isinstance(
        gate.get("alpha", 0.05), float | int
    ):
        raise InputError(f"{path} needs [gate] with numbers and [[checks]]; see rbl init")
    unknown = told.keys() - {"gate", "checks"}
    unknown |= gate.keys() - {"margin", "alpha", "policy"}
    unknown |= {k for e in entries for k in e.keys() - {"model", "baseline"}}
    if unknown:
        raise InputError(f"{path} has an unknown field {min(unknown)!r}; remove it")
    if model is not None and baseline is not None:
        return [(model, baseline)], gate
    if not entries or any({"model", "baseline"} - e.keys() for e in entries):
        raise InputError(f"{path} needs [[checks]], each with model and baseline")
    pairs = [(_beside(path, e["model"]), path.parent / str(e["baseline"])) for e in entries]
    return pairs, gate


def _beside(config: Path, model: object) -> str:
    """A model's name, or its file where that lies beside the configuration."""
    file = config.parent / str(model)
    return str(file) if file.is_file() else str(model)


def points(text: str) -> float:
    """A margin as a share: 2pt, 2 % or 0.02."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(pt|%|)\s*", text)
    if not match:
        raise InputError(f"--margin {text!r} is no number of points; write it as 2pt or 0.02")
    return float(match[1]) / (100 if match[2] else 1)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise InputError(f"--time-limit {text!r} is no time; write it as 90s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def _show(found: Sequence[Checked], answer: Answer) -> None:
    from rich.table import Table

    from robustbench_lite.cli import screen

    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold", min_width=10)
    table.add_column("measured", no_wrap=True)
    for head in ("was %", "is %", "drop", "95 % CI", "lost", "gained", "n", "p", "gate"):
        table.add_column(head, justify="right", no_wrap=True)
    colours = {"pass": "", "fail": "bold red", "inconclusive": "yellow"}
    from rich.text import Text

    for one in found:
        for f in one.findings:
            c = f.counts
            table.add_row(
                one.model,
                c.name,
                screen.percent(c.before / c.n),
                screen.percent(c.after / c.n),
                f"{100 * (c.lost - c.gained) / c.n:+.1f}",
                f"{100 * f.low:+.1f} to {100 * f.high:+.1f}",
                str(c.lost),
                str(c.gained),
                str(c.n),
                f"{f.p:.2g}",
                Text(str(f.answer), style=colours[f.answer]),
            )
    screen.show_table(f"robustness against the baseline: {str(answer).upper()}", table)
    needed = max((f.needed for one in found for f in one.findings), default=0)
    if needed:
        screen.console().print(f"about {needed} more samples would decide it", style="yellow")


def _on_github(found: Sequence[Checked]) -> None:
    """Where GitHub runs it: the job's summary, and annotations beside the commit."""
    from robustbench_lite import gate_files

    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(gate_files.as_markdown(found))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in gate_files.as_annotations(found):
            typer.echo(line)
