"""How the options' texts become values; shared by the commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Profile
    from robustbench_lite.goal import Goal
    from robustbench_lite.running import Precision

AttackSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the attack, as steps=100; see rbl show ATTACK."),
]
TargetName = Annotated[
    str | None, typer.Option("--targeted", help="Reach a class: next, random or its number.")
]
NormName = Annotated[
    str | None,
    typer.Option("--norm", help="linf, l2, l1 or l0.", show_default="the model's"),
]
Eps = Annotated[
    str | None,
    typer.Option("--eps", help="Largest distance, as 0.3 or 8/255.", show_default="the model's"),
]
ThreatName = Annotated[
    str | None,
    typer.Option(
        "--threat",
        help="Instead of a norm: patch, spatial or corruption, as patch:area=0.1.",
        show_default="a norm",
    ),
]
Samples = Annotated[int, typer.Option("--n", help="Samples to evaluate.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Samples attacked side by side.")]
Width = Annotated[
    str,
    typer.Option("--batch-size", help="Samples attacked side by side; auto tries what is best."),
]
PrecisionName = Annotated[
    str,
    typer.Option("--precision", help="Of the search: float32, or bf16 in less time."),
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Search on a compiled copy; for long runs on GPUs.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random number.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write figures and samples here.")]
_FRACTION = re.compile(r"\s*([^/\s]+)\s*/\s*([^/\s]+)\s*")
_CLASS = re.compile("[0-9]{1,9}")


def number(text: str, option: str) -> float:
    """A number such as 0.3, inf or 8/255.

    Raises:
        InputError: it is not one, or is NaN or negative; the message names the option.
    """
    import math

    match = _FRACTION.fullmatch(text)
    try:
        value = float(match[1]) / float(match[2]) if match else float(text)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if math.isnan(value) or value < 0:
        raise InputError(
            f"{option} {text!r} is not a number of 0 or more; write it as 0.3 or 8/255"
        )
    return value


def positive(value: int, option: str) -> int:
    """`value` itself.

    Raises:
        InputError: it is below 1; the message names the option.
    """
    if value < 1:
        raise InputError(f"{option} {value} leaves nothing to do; give 1 or more")
    return value


def width_of(text: str) -> int | None:
    """The batch size of --batch-size, None for auto.

    Raises:
        InputError: it is neither auto nor a number of 1 or more.
    """
    if text == "auto":
        return None
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise InputError(f"--batch-size {text!r} is neither auto nor a whole number; try 256")
    return positive(int(text), "--batch-size")


def precision_of(text: str) -> Precision:
    """The precision of --precision.

    Raises:
        InputError: there is none of that name.
    """
    from robustbench_lite.running import Precision

    try:
        return Precision(text)
    except ValueError as error:
        raise InputError(
            f"--precision {text!r} is unknown; give {' or '.join(Precision)}"
        ) from error


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        InputError: one of them is not a number of 0 or more; the message names the option.
    """
    return tuple(number(part, option) for part in text.split(","))


def device_of(name: str) -> torch.device:
    """The device of --device.

    Raises:
        InputError: it does not exist here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise InputError(f"--device {name!r} is none of auto, cpu, cuda and mps; try cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name!r} cannot be used here; try --device cpu") from error
    return device


def settings(texts: list[str] | None, option: str) -> dict[str, str]:
    """The values of --set KEY=VALUE and its like.

    Raises:
        InputError: a text has no equals sign, or a key comes twice; the message names the option.
    """
    values: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {text!r} is not KEY=VALUE; write it as {option} steps=100")
        if key in values:
            raise InputError(f"{option} gives {key!r} twice; give it once")
        values[key] = value
    return values


def scalars(texts: list[str] | None, option: str) -> dict[str, object] | None:
    """The values of KEY=VALUE as numbers or truth values where they are such, else as text.

    Raises:
        InputError: a text has no equals sign, or a key comes twice; the message names the option.
    """
    import json

    found: dict[str, object] = {}
    for key, text in settings(texts, option).items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found or None


Effort = Annotated[
    str | None,
    typer.Option(
        "--effort",
        help="Of the attack verdict: quick, standard or thorough.",
        show_default="standard",
    ),
]
VERDICT = "verdict"


def with_effort(names: Sequence[str], effort: str | None) -> dict[str, dict[str, str]]:
    """The settings of each attack that --effort stands for.

    Raises:
        InputError: --effort is given, and none of the attacks is the verdict.
    """
    if effort is not None and VERDICT not in names:
        raise InputError(
            f"--effort {effort!r} is for the attack {VERDICT}; leave it out, or --attack"
        )
    return {n: {"effort": effort} if n == VERDICT and effort else {} for n in names}


def plan_of(name: str, values: dict[str, str], restarts: int = 1) -> Plan:
    """The attack of a name with its settings, restarted where asked.

    Raises:
        InputError: no such attack or setting, or a value that the setting does not take.
    """
    from robustbench_lite.attack import Restarts
    from robustbench_lite.registry import load_attack

    attack = load_attack(name, **values)
    return attack if restarts == 1 else Restarts(attack, restarts)


def goal_of(targeted: str | None, profile: Profile) -> Goal:
    """The goal of --targeted.

    Raises:
        InputError: it is neither next, random nor the number of one of the model's classes.
    """
    from robustbench_lite.goal import Choice, Targeted, Untargeted

    if targeted is None:
        return Untargeted()
    if targeted in list(Choice):
        return Targeted(Choice(targeted))
    if _CLASS.fullmatch(targeted) and int(targeted) < profile.classes:
        return Targeted(int(targeted))
    raise InputError(
        f"--targeted {targeted!r} is unknown; write next, random or one of the classes "
        f"0 to {profile.classes - 1} of model {profile.name!r}"
    )
