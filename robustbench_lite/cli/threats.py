"""How --norm, --eps, --threat, --access and --queries become threats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from robustbench_lite.cli import options
from robustbench_lite.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Card
    from robustbench_lite.threat import Access, Lp, Threat


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
    threat: str | None,
    card: Card,
    access: Access,
    queries: int | None,
) -> list[Threat]:
    """The threats of --norm with every --eps, or that of --threat.

    Raises:
        InputError: --threat is given beside --norm or --eps, an eps comes twice, or one of them
            cannot be read.
    """
    if threat is not None:
        if norm is not None or distances is not None:
            raise InputError("--threat stands instead of --norm and --eps; give it alone")
        return [structured_of(threat, access, queries)]
    chosen = distances or (None,)
    if len(set(chosen)) < len(chosen):
        raise InputError("--eps names a distance twice; give each once")
    each = [threat_of(norm, eps, card) for eps in chosen]
    return [
        dataclasses.replace(one, access=access, queries=queries)
        for one in sorted(each, key=lambda one: one.eps)
    ]


def usual_threat(
    plans: Mapping[str, Plan], card: Card, access: Access, queries: int | None
) -> Threat:
    """The card's threat where every plan can keep to it, else the first usual one that all can."""
    from robustbench_lite.structured import STRUCTURED

    usual = dataclasses.replace(card.threat, access=access, queries=queries)
    others = [kind(access=access, queries=queries) for kind in STRUCTURED.values()]
    fitting = [t for t in (usual, *others) if all(plan.supports(t) for plan in plans.values())]
    return fitting[0] if fitting else usual


def structured_of(text: str, access: Access, queries: int | None) -> Threat:
    """The threat of --threat NAME or NAME:KEY=VALUE,KEY=VALUE.

    Raises:
        InputError: no such threat or setting, or a value that the setting does not take.
    """
    from robustbench_lite.errors import unknown
    from robustbench_lite.structured import STRUCTURED

    name, _, rest = text.partition(":")
    if name not in STRUCTURED:
        raise unknown("--threat", name, STRUCTURED)
    values = options.settings([part for part in rest.split(",") if part], "--threat")
    kind = STRUCTURED[name]
    known = [f.name for f in dataclasses.fields(kind) if f.name not in ("access", "queries")]
    for key in values:
        if key not in known:
            raise unknown(f"setting of --threat {name}", key, known)
    parsed = dataclasses.asdict(kind()) | values | {"access": access, "queries": queries}
    threat: Threat = kind(**parsed)
    return threat


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


def check_supported(plans: Mapping[str, Plan], threat: Threat) -> None:
    """Find out before the work starts whether every attack can keep to the threat.

    Raises:
        InputError: one cannot; the message names it and the norms that it takes.
    """
    from robustbench_lite.structured import STRUCTURED
    from robustbench_lite.threat import Lp, Norm

    for name, plan in plans.items():
        if plan.supports(threat):
            continue
        others = [key for key, kind in STRUCTURED.items() if plan.supports(kind())]
        if others:
            raise UnsupportedError(
                f"attack {name!r} does not support {threat}; give --threat {' or '.join(others)}, "
                "or another --attack"
            )
        if not isinstance(threat, Lp):
            raise UnsupportedError(
                f"attack {name!r} does not support {threat}; give --norm and --eps, "
                "or another --attack"
            )
        norms = [str(norm) for norm in Norm if plan.supports(Lp(norm, threat.eps))]
        if norms:
            remedy = f"give --norm {' or '.join(norms)} with its --eps, or another --attack"
        else:
            remedy = "give another --eps or another --attack"
        raise UnsupportedError(
            f"attack {name!r} does not support {threat.norm} with eps {threat.eps:g}; {remedy}"
        )
