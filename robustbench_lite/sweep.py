"""Robust accuracy over eps: one evaluation of a minimal attack, or one sweep of any other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from robustbench_lite.attack import Plan
from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.goal import Goal
from robustbench_lite.judge import evaluate
from robustbench_lite.outcomes import joined, numbered_anew
from robustbench_lite.results import Outcome
from robustbench_lite.running import Precision, Progress
from robustbench_lite.stream import Stream
from robustbench_lite.threat import Lp, Threat


def sweep(
    model: nn.Module,
    attack: Plan,
    threats: Sequence[Threat],
    data: Dataset | Stream,
    *,
    goal: Goal | None = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int | None = 256,
    exact: bool = False,
    precision: Precision = Precision.FLOAT32,
    compiled: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> list[Outcome]:
    """The outcome at each of several eps of one norm, smallest first.

    An attack that shrinks the perturbation runs once, at the largest eps. Any other runs at each
    eps in turn, on the samples that it has not yet broken at a smaller one. A stream is read and
    attacked some samples at a time, and its adversarial examples are not kept.

    Args:
        model: as for `evaluate`, and so are the arguments not named here.
        attack: an attack, Restarts or a Cascade.
        threats: Lp threats that differ in eps only, or one threat of any kind.
        data: the samples, in memory or as a stream.
        goal: what counts as success.
        surrogate: a model that the search asks instead.
        seed: of all random numbers.
        batch_size: how many samples are attacked side by side.
        exact: results equal bit by bit for every batch size and order.
        precision: of the search.
        compiled: the search asks a copy made by torch.compile.
        report: called as samples finish.

    Returns:
        One outcome a threat. `seconds` and `queries` are what it took up to this eps; robust
        accuracy never rises from one to the next.

    Raises:
        InputError: there is no threat, or they differ in more than eps; and as `evaluate` does.
    """

    def judged(threat: Threat, some: Dataset) -> Outcome:
        return evaluate(
            model,
            attack,
            threat,
            some,
            goal=goal,
            surrogate=surrogate,
            seed=seed,
            batch_size=batch_size,
            exact=exact,
            precision=precision,
            compiled=compiled,
            report=report,
        )

    if isinstance(data, Stream):
        return _in_parts(data, lambda part: _swept(judged, attack, threats, part))
    return _swept(judged, attack, threats, data)


def _in_parts(data: Stream, swept: Callable[[Dataset], list[Outcome]]) -> list[Outcome]:
    """One part in memory at a time."""
    whole: list[Outcome] = []
    for part in data.parts():
        found = swept(part)
        whole = [joined(two) for two in zip(whole, found, strict=True)] if whole else found
        del part, found  # images, before more are read
        gc.collect()  # prepared copies of the model hold themselves
    return [numbered_anew(outcome) for outcome in whole]


def _swept(
    judged: Callable[[Threat, Dataset], Outcome],
    attack: Plan,
    threats: Sequence[Threat],
    data: Dataset,
) -> list[Outcome]:
    if len(threats) == 1:
        return [judged(threats[0], data)]
    ordered = sorted({t for t in threats if isinstance(t, Lp)}, key=lambda t: t.eps)
    alike = {replace(t, eps=0.0) for t in ordered}
    if len(ordered) < len(threats) or len(alike) != 1:
        raise InputError(
            "a curve needs threats that differ in eps only; give each eps of one norm once"
        )
    if all(stage.minimal for stage in attack.attacks(ordered[-1])):
        whole = judged(ordered[-1], data)
        return [_cut(whole, threat, data) for threat in ordered]
    outcomes = [judged(ordered[0], data)]
    for threat in ordered[1:]:
        last = outcomes[-1]
        left = [i for i, r in enumerate(last.records) if r.robust]
        if left:
            more = judged(threat, data.take(left))
            outcomes.append(_merged(last, threat, left, more))
        else:
            outcomes.append(replace(last, threat=threat))
    return outcomes


def _cut(outcome: Outcome, threat: Lp, data: Dataset) -> Outcome:
    """What a minimal attack's outcome says of a smaller eps."""
    # Where nothing was found the adversarial is the image itself, which is always inside.
    inside = threat.contains(data.x, outcome.adversarials)
    records = tuple(
        r if within else replace(r, robust=True, attack="")
        for r, within in zip(outcome.records, inside.tolist(), strict=True)
    )
    kept = torch.where(inside.reshape(-1, 1, 1, 1), outcome.adversarials, data.x)
    return replace(outcome, threat=threat, records=records, adversarials=kept)


def _merged(last: Outcome, threat: Lp, rows: Sequence[int], more: Outcome) -> Outcome:
    """The outcome at the next eps: what broke before stays broken."""
    records = list(last.records)
    adversarials = last.adversarials.clone()
    for place, (i, record) in enumerate(zip(rows, more.records, strict=True)):
        records[i] = replace(
            record,
            queries=record.queries + last.records[i].queries,
            backwards=record.backwards + last.records[i].backwards,
        )
        adversarials[i] = more.adversarials[place]
    return replace(
        more,
        threat=threat,
        data=last.data,
        seconds=last.seconds + more.seconds,
        records=tuple(records),
        adversarials=adversarials,
        doubts=tuple(dict.fromkeys(last.doubts + more.doubts)),
    )
