"""`rbl validate`: does an attack keep the promises that every attack makes?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.cli import files, options
from robustbench_lite.errors import InputError, UnsupportedError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from robustbench_lite.testing import Check

BROKEN = 1


def validate(
    attack: Annotated[str, typer.Argument(help="An attack, as pgd or torchattacks:CW.")],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the attack, as steps=100; see rbl show ATTACK."),
    ] = None,
    checks: Annotated[
        list[str] | None,
        typer.Option("--check", help="Only this check; repeat for several.", show_default="all"),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option("--norm", help="Only in this norm.", show_default="all it supports"),
    ] = None,
    json_file: options.JsonFile = None,
) -> None:
    """Check an attack, ours or anyone's, against everything that an attack must keep to.

    The checks use tiny models with known answers and download nothing. Ends with exit code 1 if a
    promise is broken.
    """
    files.check_writable(json_file, "--json")
    given = options.settings(values, "--set")

    from robustbench_lite.cli import progress, screen
    from robustbench_lite.testing import CHECKS, run_check, threats_of
    from robustbench_lite.threat import Lp, Norm

    plan = options.plan_of(attack, given)
    for name in checks or []:
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
    if norm is not None and norm not in list(Norm):
        raise InputError(f"--norm {norm!r} is unknown; choose from {', '.join(Norm)}")
    threats = threats_of(plan)
    if norm is not None:
        threats = tuple(t for t in threats if isinstance(t, Lp) and t.norm == norm)
        if not threats:
            raise UnsupportedError(
                f"attack {attack!r} does not support --norm {norm}; leave --norm out"
            )
    found = []
    names = list(dict.fromkeys(checks or CHECKS))
    for name in names:
        with progress.waiting(f"{attack}: {name}"):
            found.append(run_check(name, plan, threats))
    if json_file is not None:
        files.write_whole({json_file: _as_json(attack, found)})
    screen.show_table(f"{plan}", _table(found))
    kept = sum(check.verdict == "kept" for check in found)
    broken = sum(not check.passed for check in found)
    idle = len(found) - kept - broken
    grade = f"{kept} of {kept + broken} promises kept"
    screen.console().print(grade + (f", {idle} not applicable" if idle else ""))
    if broken:
        raise typer.Exit(BROKEN)


def _table(found: Sequence[Check]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("promise", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    for check in found:
        table.add_row(
            check.name,
            check.verdict,
            check.detail.removeprefix("not applicable: "),
            style="" if check.passed else "bold red",
        )
    return table


def _as_json(attack: str, found: Sequence[Check]) -> bytes:
    entries = [{"check": c.name, "verdict": c.verdict, "detail": c.detail} for c in found]
    return json.dumps({"attack": attack, "checks": entries}, indent=1).encode()
