"""`rbl init` and `rbl power`: what one wants to know before a gate is set up."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from robustbench_lite.cli import files, subjects
from robustbench_lite.cli.check import points
from robustbench_lite.errors import InputError

_CONFIG = """# Robustness checks; `rbl check` reads this file. Make each baseline once, and
# again when a change is wanted:
#   rbl baseline update --model {quoted} --baseline {baseline} --reason "first"

[gate]
# A drop of accuracy, in points, that must not be passed. `rbl power --drop 2pt` tells how many
# samples it takes to see it.
margin = "2pt"
# The chance to fail a model that has not changed, and to pass one that dropped by the margin.
alpha = 0.05
# standard: fails on a drop beyond chance that may reach the margin; strict: on any drop beyond
# chance; exact: on any sample that was right and is not.
policy = "standard"

# One of these for each model.
[[checks]]
model = "{model}"
baseline = "{baseline}"
"""


def init(
    model: subjects.ModelName,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("rbl.toml"),
) -> None:
    """Write a commented rbl.toml for a model, and say what to do next."""
    if out.exists():
        raise InputError(f"{out} exists; remove it, or give another --out")
    files.check_writable(out, "--out")

    from robustbench_lite.models import load_with_profile

    name = load_with_profile(model)[0].name
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-")
    baseline = f"{plain}.baseline.json"
    quoted = shlex.quote(model)
    text = _CONFIG.format(model=model, quoted=quoted, baseline=baseline)
    files.write_whole({out: text.encode()})
    typer.echo(
        f"wrote {out}; next: rbl baseline update --model {quoted} --baseline {baseline} "
        '--reason "first", then rbl check'
    )


def power(
    drop: Annotated[str, typer.Option("--drop", help="The drop to be seen, as 2pt.")] = "2pt",
    discordance: Annotated[
        float, typer.Option("--discordance", help="Share of samples that flip, either way.")
    ] = 0.04,
    alpha: Annotated[float, typer.Option("--alpha", help="Chance of a false alarm.")] = 0.05,
    chance: Annotated[float, typer.Option("--power", help="Chance to see the drop.")] = 0.95,
) -> None:
    """How many samples does a gate need? (Connor 1987)."""
    from robustbench_lite.stats import samples_needed

    share = points(drop)
    n = samples_needed(discordance, share, alpha, chance)
    typer.echo(
        f"{n} samples show a drop of {100 * share:g} points with a chance of {100 * chance:g} %, "
        f"where {100 * discordance:g} % of the samples flip; false alarms {100 * alpha:g} %"
    )
