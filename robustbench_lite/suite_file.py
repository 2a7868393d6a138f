"""A suite of one's own, from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustbench_lite.attack import Restarts
from robustbench_lite.errors import UNREADABLE_TOML, InputError
from robustbench_lite.registry import load_attack, load_threat
from robustbench_lite.running import Precision
from robustbench_lite.settings import first_problem
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Access, Lp, Norm, Threat

Value = str | int | float | bool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _TrialTable(_Strict):
    """One [[trials]]: an attack, and a norm with eps or another threat."""

    attack: str
    name: str = ""
    set: dict[str, Value] = Field(default_factory=dict)
    restarts: int = Field(default=1, ge=1)
    norm: Norm | None = None
    eps: str | float | None = None
    threat: str | None = None
    threat_set: dict[str, Value] = Field(default_factory=dict)
    access: Literal["decisions", "scores", "gradients"] = "gradients"
    queries: int | None = Field(default=None, ge=1)


class _SuiteTable(_Strict):
    name: str = Field(min_length=1)
    summary: str = ""
    data: str | None = None
    n: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    slice: int = Field(default=250, ge=1)
    precision: Precision = Precision.FLOAT32
    trials: list[_TrialTable] = Field(min_length=1)


def read_suite(path: Path) -> Suite:
    """The suite that a TOML file describes.

    Raises:
        InputError: the file is missing, is no TOML, or has an unknown or unfit field; the message
            names the line.
    """
    try:
        text = path.read_text("utf-8")
        table = _SuiteTable.model_validate(tomllib.loads(text))
    except FileNotFoundError:
        raise InputError(f"suite file {path} does not exist; check the path") from None
    except UNREADABLE_TOML as error:
        raise InputError(f"suite file {path} cannot be read ({error}); correct it") from error
    except ValidationError as error:
        line = _line_of(text, error.errors()[0]["loc"])
        raise InputError(
            f"suite file {path}, line {line}: {first_problem(error)}; correct it"
        ) from error
    trials = []
    for number, trial in enumerate(table.trials):
        try:
            trials.append(_trial(trial))
        except InputError as error:
            line = _line_of(text, ("trials", number))
            raise InputError(f"suite file {path}, line {line}: {error}") from error
    return Suite(
        name=table.name,
        trials={"": tuple(trials)},
        summary=table.summary,
        data=table.data,
        n=table.n,
        seed=table.seed,
        slice=table.slice,
        precision=table.precision,
    )


def _trial(table: _TrialTable) -> Trial:
    attack = load_attack(table.attack, **table.set)
    plan = attack if table.restarts == 1 else Restarts(attack, table.restarts)
    return Trial(table.name or table.attack, plan, _threat(table))


def _threat(table: _TrialTable) -> Threat:
    access = Access[table.access.upper()]
    if table.threat is not None:
        if table.norm is not None or table.eps is not None:
            raise InputError("a trial has either a threat or a norm with eps; leave out one")
        limits = {"access": access, "queries": table.queries}
        return load_threat(table.threat, **table.threat_set, **limits)
    if table.norm is None or table.eps is None:
        raise InputError('a trial needs norm and eps, as norm = "linf" and eps = "8/255"')
    return Lp(table.norm, _distance(table.eps), access, table.queries)


def _distance(eps: str | float) -> float:
    try:
        return float(Fraction(eps.replace(" ", "")) if isinstance(eps, str) else eps)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"eps {eps!r} is not a number; write it as 0.3 or 8/255") from None


def _line_of(text: str, place: Sequence[str | int]) -> int:
    """The line that a field stands in, or the table that should have it; from 1."""
    lines = text.splitlines()
    start = 0
    if len(place) > 1 and isinstance(place[1], int):
        heads = [i for i, line in enumerate(lines) if re.match(r"\s*\[\[\s*trials\s*\]\]", line)]
        start = heads[place[1]] if place[1] < len(heads) else 0
        place = place[2:]
    for name in reversed([str(part) for part in place]):
        for number, line in enumerate(lines[start:], start):
            if re.match(rf'\s*"?{re.escape(name)}"?\s*=', line):
                return number + 1
            if number > start and re.match(r"\s*\[\[", line):
                break
    return start + 1
