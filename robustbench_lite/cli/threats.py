"""How --norm, --eps, --access and --queries become threats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from robustbench_lite.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Card
    from robustbench_lite.threat import Access, Lp


def access_of(name: str) -> Access:
    """What --access lets be seen.

    Raises:
        InputError: there is no such access.
    """
    from robustbench_lite.threat import Access

    names = [access.name.lower() for access in Access]
    if name not in names:
        raise InputError(f"--access {name!r} is unknown; choose from {', '.join(names)}")
    return Access[name.upper()]


def threats_of(
    norm: str | None,
    distances: tuple[float, ...] | None,
    card: Card,
    access: Access,
    queries: int | None,
) -> list[Lp]:
    """The threats of --norm with every --eps, smallest first.

    Raises:
        InputError: an eps comes twice, or one of them cannot be read.
    """
    chosen = distances or (None,)
    if len(set(chosen)) < len(chosen):
        raise InputError("--eps names a distance twice; give each once")
    each = [threat_of(norm, eps, card) for eps in chosen]
    return [
        replace(one, access=access, queries=queries)
        for one in sorted(each, key=lambda one: one.eps)
    ]


def threat_of(norm: str | None, eps: float | None, card: Card) -> Lp:
    """The threat of --norm and --eps, by default the card's.

    Raises:
        InputError: the norm is unknown, or eps is missing for another norm than the card's.
    """
    from robustbench_lite.threat import Lp, Norm

    if norm is not None and norm not in list(Norm):
        raise InputError(f"--norm {norm!r} is unknown; choose from {', '.join(Norm)}")
    chosen = card.norm if norm is None else Norm(norm)
    if eps is not None:
        return Lp(chosen, eps)
    if chosen is not card.norm:
        raise InputError(
            f"--eps is needed: the card of {card.name!r} has one for {card.norm}, not for {chosen}"
        )
    return Lp(chosen, card.eps)


def check_supported(plans: Mapping[str, Plan], threat: Lp) -> None:
    """Find out before the work starts whether every attack can keep to the threat.

    Raises:
        InputError: one cannot; the message names it and the norms that it takes.
    """
    from robustbench_lite.threat import Lp, Norm

    for name, plan in plans.items():
        if plan.supports(threat):
            continue
        if threat.queries is not None and plan.supports(replace(threat, queries=None)):
            raise UnsupportedError(
                f"attack {name!r} cannot keep to a cap of queries; leave out --queries, "
                "or give another --attack"
            )
        norms = [str(norm) for norm in Norm if plan.supports(Lp(norm, threat.eps))]
        if norms:
            remedy = f"give --norm {' or '.join(norms)} with its --eps, or another --attack"
        else:
            remedy = "give another --eps or another --attack"
        raise UnsupportedError(
            f"attack {name!r} does not support {threat.norm} with eps {threat.eps:g}; {remedy}"
        )
