"""Several outcomes as one: of several attacks, or of several parts of the data."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from robustbench_lite.data import content_of
from robustbench_lite.doubts import doubts_of, too_short
from robustbench_lite.errors import InputError
from robustbench_lite.results import Outcome


def worst_case(outcomes: Sequence[Outcome]) -> Outcome:
    """The per-sample worst case over several outcomes of the same model, threat and samples.

    Args:
        outcomes: one an attack, at least one.

    Returns:
        An outcome in which a sample is robust if it is in all, with its smallest example and the
        queries of all attacks together.

    Raises:
        InputError: there is none, or they are not about the same samples.
    """
    if not outcomes:
        raise InputError("there is no outcome to combine; run at least one attack")
    first = outcomes[0]
    same = {(o.model, o.threat, tuple(r.id for r in o.records)) for o in outcomes}
    if len(same) > 1:
        raise InputError("outcomes of different models, threats or samples cannot be combined")
    lost = [(o.steps, sum(not r.robust for r in o.records), o.attack) for o in outcomes]
    adversarials = first.adversarials.clone()
    records = []
    for i, found in enumerate(zip(*(o.records for o in outcomes), strict=True)):
        sized = [(r.size, k) for k, r in enumerate(found) if r.size is not None]
        size, best = min(sized, default=(None, 0))
        gaps = [r.gap for r in found if r.gap is not None]
        robust = all(r.robust for r in found)
        if size is not None and len(adversarials):
            adversarials[i] = outcomes[best].adversarials[i]
        records.append(
            replace(
                found[best],
                robust=robust,
                size=size,
                gap=min(gaps) if robust and gaps else None,
                queries=sum(r.queries for r in found),
                backwards=sum(r.backwards for r in found),
                attack=next((r.attack for r in found if r.attack), ""),
                error=next((r.error for r in found if r.error), ""),
            )
        )
    return replace(
        first,
        attack="worst case of " + "; ".join(o.attack for o in outcomes),
        seconds=sum(o.seconds for o in outcomes),
        records=tuple(records),
        adversarials=adversarials,
        doubts=tuple(
            dict.fromkeys([*(d for o in outcomes for d in o.doubts), *too_short(lost, first.n)])
        ),
        steps=max(o.steps for o in outcomes),
    )


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """What one plan did to one model on all parts of the data; adversarial examples are dropped.

    Args:
        outcomes: one a part, at least one. One alone is returned as it is.
    """
    first = outcomes[0]
    if len(outcomes) == 1:
        return first
    evidence = functools.reduce(operator.add, (o.evidence for o in outcomes))
    return replace(
        first,
        seconds=sum(o.seconds for o in outcomes),
        records=tuple(r for o in outcomes for r in o.records),
        adversarials=first.adversarials[:0].clone(),
        evidence=evidence,
        doubts=doubts_of(evidence),
        steps=max(o.steps for o in outcomes),
    )


def numbered_anew(outcome: Outcome) -> Outcome:
    """The outcome with the ids that a Dataset of all its samples gives to copies of one."""
    seen: Counter[str] = Counter()
    records = []
    for record in outcome.records:
        base = content_of(record.id)
        name = f"{base}.{seen[base]}" if seen[base] else base
        records.append(record if record.id == name else replace(record, id=name))
        seen[base] += 1
    return replace(outcome, records=tuple(records))
