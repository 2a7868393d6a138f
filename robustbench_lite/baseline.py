"""How a model did, in a small file that is kept with its code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from robustbench_lite.data import rank_of
from robustbench_lite.errors import RblError
from robustbench_lite.identity import described, described_plan, digest, digest_of_code
from robustbench_lite.results import Outcome
from robustbench_lite.settings import first_problem
from robustbench_lite.suite import Trial

_DIGITS = 6  # of an id, for people; the digest holds all of them
_LINE = 10  # samples
_WRONG, _BROKEN, _ROBUST = ".-+"


class BaselineError(RblError):
    """A baseline is missing, damaged, or about something else than what is measured."""

    exit_code = 5


@dataclass(frozen=True)
class Baseline:
    """What a model did on some samples in some trials.

    Attributes:
        model: the model's name.
        data: where the samples came from, as for `load_data`.
        seed: of all random numbers.
        ids: of the samples, in the order in which they are looked at.
        trials: what decides each trial: its name, how to ask for it, digests.
        clean: which samples were right without an attack.
        robust: which samples were right whatever the attack did, by trial.
        note: who, when, why, with which versions.
    """

    model: str
    data: str
    seed: int
    ids: tuple[str, ...]
    trials: tuple[Mapping[str, Any], ...]
    clean: tuple[bool, ...]
    robust: Mapping[str, tuple[bool, ...]]
    note: Mapping[str, Any]


def told_trial(trial: Trial, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a trial; `asked` is how the command line asks for it."""
    return {
        "name": trial.name,
        "asked": dict(asked),
        "attack": digest(described_plan(trial.attack, trial.threat)),
        "code": digest_of_code(trial.attack, trial.threat),
        "threat": described(trial.threat),
    }


def check_same(baseline: Baseline, trials: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> None:
    """May results be compared with the baseline's?

    Raises:
        BaselineError: no; the message names what differs.
    """
    if tuple(ids) != baseline.ids:
        lost = len(set(baseline.ids) - set(ids))
        raise BaselineError(
            f"the baseline is not comparable: data {baseline.data!r} lacks {lost} of its "
            f"{len(baseline.ids)} samples, or has changed them; give the same data, or update the "
            "baseline"
        )
    for was, now in zip(baseline.trials, trials, strict=True):
        for part in ("threat", "attack", "code"):
            if was[part] != now[part]:
                what = "the attack's code" if part == "code" else f"the {part}"
                raise BaselineError(
                    f"the baseline is not comparable: {what} of {was['name']} differs from what "
                    "it was made with; update the baseline with the model that it stands for"
                )


def baseline_of(
    model: str,
    data: str,
    trials: Sequence[Mapping[str, Any]],
    outcomes: Sequence[Outcome],
    note: Mapping[str, Any],
) -> Baseline:
    """The baseline of what was found, one outcome a trial on the same samples."""
    first = outcomes[0]
    names = [str(trial["name"]) for trial in trials]
    return Baseline(
        model=model,
        data=data,
        seed=first.seed,
        ids=tuple(r.id for r in first.records),
        trials=tuple(trials),
        clean=tuple(r.correct for r in first.records),
        robust={
            name: tuple(r.robust for r in outcome.records)
            for name, outcome in zip(names, outcomes, strict=True)
        },
        note=note,
    )


def baseline_text(baseline: Baseline) -> str:
    """JSON of one line a field and ten samples a line: 6 digits of an id and a mark a trial.

    `+` robust, `-` broken, `.` wrong without an attack.
    """
    samples = [
        sample[:_DIGITS] + "".join(_mark(baseline, name, i) for name in baseline.robust)
        for i, sample in enumerate(baseline.ids)
    ]
    lines = [" ".join(samples[i : i + _LINE]) for i in range(0, len(samples), _LINE)]
    whole = {
        "format": 1,
        "model": baseline.model,
        "data": baseline.data,
        "seed": baseline.seed,
        "n": len(samples),
        "ids": _digest_of(baseline.ids),
        "note": dict(baseline.note),
        "trials": [dict(trial) for trial in baseline.trials],
        "samples": lines,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _mark(baseline: Baseline, name: str, i: int) -> str:
    if not baseline.clean[i]:
        return _WRONG
    return _ROBUST if baseline.robust[name][i] else _BROKEN


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    model: str
    data: str
    seed: int
    n: int
    ids: str
    note: dict[str, Any]
    trials: list[dict[str, Any]]
    samples: list[str]


def read_baseline(path: Path, known: Sequence[str] | None = None) -> Baseline:
    """The baseline in a file.

    Args:
        path: of the file.
        known: ids of the data's samples, among which the file's abbreviated ones are found; None
            leaves them short.

    Raises:
        BaselineError: it is missing or damaged, or its samples are not among those known.
    """
    try:
        told = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BaselineError(
            f"baseline {path} does not exist; make it with rbl baseline update"
        ) from None
    except (OSError, ValueError) as error:
        cause = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise BaselineError(
            f"baseline {path} cannot be read ({cause}); restore it, or make it with rbl baseline "
            "update"
        ) from error
    samples = [sample for line in told.samples for sample in line.split()]
    names = [str(trial.get("name")) for trial in told.trials]
    marks = [sample[_DIGITS:] for sample in samples]
    sound = len(samples) == told.n and all(
        len(m) == len(names) and set(m) <= {_WRONG, _BROKEN, _ROBUST} for m in marks
    )
    parts = {"name", "asked", "attack", "code", "threat"}
    if not sound or not names or any(parts - trial.keys() for trial in told.trials):
        raise BaselineError(f"baseline {path} has lines that are not whole; restore it")
    short = tuple(sample[:_DIGITS] for sample in samples)
    ids = short if known is None else _found(short, known, told, path)
    return Baseline(
        model=told.model,
        data=told.data,
        seed=told.seed,
        ids=ids,
        trials=tuple(told.trials),
        clean=tuple(_WRONG not in mark for mark in marks),
        robust={
            name: tuple(mark[place] == _ROBUST for mark in marks)
            for place, name in enumerate(names)
        },
        note=told.note,
    )


def _found(short: Sequence[str], known: Sequence[str], told: _File, path: Path) -> tuple[str, ...]:
    """The whole ids; the digest in the file tells whether they are the right ones."""
    ranked = sorted(known, key=lambda sample: rank_of(told.seed, sample))
    if _digest_of(ranked[: told.n]) == told.ids:
        return tuple(ranked[: told.n])
    # There are more images now: the baseline's come in the same order among the others.
    ids, place = [], 0
    for start in short:
        near = range(place, len(ranked))
        place = next((i + 1 for i in near if ranked[i].startswith(start)), place)
        ids.append(ranked[place - 1] if place else "")
    if _digest_of(ids) == told.ids:
        return tuple(ids)
    starts = {sample[:_DIGITS] for sample in known}
    lost = sum(start not in starts for start in short)
    what = f"lacks {lost} of its {told.n} samples" if lost else "has other samples"
    raise BaselineError(
        f"the baseline is not comparable: data {told.data!r} {what} than {path} was made with; "
        "give the same data, or update the baseline"
    )


def _digest_of(ids: Sequence[str]) -> str:
    return hashlib.blake2b(" ".join(ids).encode(), digest_size=16).hexdigest()


def shortened(baseline: Baseline) -> Baseline:
    """The same with ids as a file has them."""
    return replace(baseline, ids=tuple(sample[:_DIGITS] for sample in baseline.ids))


def changed(before: Baseline, after: Baseline) -> list[str]:
    """What an update changes, a line each: accuracies, and how many samples flipped."""
    lines = []
    pairs = [("clean", before.clean, after.clean)]
    pairs += [
        (name, before.robust[name], after.robust[name])
        for name in after.robust
        if name in before.robust
    ]
    if before.ids != after.ids:
        return ["the samples are others: accuracies cannot be compared"]
    for name, was, now in pairs:
        lost = sum(a and not b for a, b in zip(was, now, strict=True))
        gained = sum(b and not a for a, b in zip(was, now, strict=True))
        share = 100 / len(was)
        lines.append(
            f"{name}: {share * sum(was):.1f} % -> {share * sum(now):.1f} %, {lost} lost, "
            f"{gained} gained"
        )
    return lines
