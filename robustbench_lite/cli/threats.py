"""How --norm, --eps, --threat, --access and --queries become threats."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from robustbench_lite.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Profile
    from robustbench_lite.classifier import Classifier
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


def other_than_a_norm(text: str, norm: str | None, eps: object) -> Threat:
    """The threat of --threat, as patch or patch:area=0.1.

    Raises:
        InputError: there is no such threat, it does not take a value, or --norm or --eps is there
            too.
    """
    from robustbench_lite.cli.options import settings
    from robustbench_lite.registry import load_threat

    if norm is not None or eps is not None:
        raise InputError(
            f"--threat {text!r} has no norm and no eps; leave out --norm and --eps, or --threat"
        )
    name, _, values = text.partition(":")
    parts = values.split(",") if values else []
    for part in parts:
        if "=" not in part:
            raise InputError(
                f"--threat {text!r}: {part!r} is not KEY=VALUE; write it as {name}:KEY=VALUE"
            )
    return load_threat(name, **settings(parts, f"--threat {name}:"))


def threats_of(
    norm: str | None,
    distances: tuple[float, ...] | None,
    threat: str | None,
    profile: Profile,
    access: Access,
    queries: int | None,
) -> Sequence[Threat]:
    """The one of --threat, or those of --norm with every --eps, smallest first.

    Raises:
        InputError: an eps comes twice, or --threat has access or queries in it.
    """
    from robustbench_lite.threat import Access

    if threat is not None:
        one = other_than_a_norm(threat, norm, distances)
        if (one.access, one.queries) != (Access.GRADIENTS, None):
            raise InputError(
                f"--threat {threat!r} has access or queries; give them as --access and --queries"
            )
        return [replace(one, access=access, queries=queries)]  # type: ignore[type-var]  # a dataclass
    chosen = distances or (None,)
    if len(set(chosen)) < len(chosen):
        raise InputError("--eps names a distance twice; give each once")
    each = [threat_of(norm, eps, profile) for eps in chosen]
    return [
        replace(one, access=access, queries=queries)
        for one in sorted(each, key=lambda one: one.eps)
    ]


def threat_of(norm: str | None, eps: float | None, profile: Profile) -> Lp:
    """The threat of --norm and --eps, by default the model's.

    Raises:
        InputError: the norm is unknown, or eps is missing for another norm than the model's.
    """
    from robustbench_lite.threat import Lp, Norm

    if norm is not None and norm not in list(Norm):
        raise InputError(f"--norm {norm!r} is unknown; choose from {', '.join(Norm)}")
    chosen = profile.norm if norm is None else Norm(norm)
    if eps is not None:
        return Lp(chosen, eps)
    if chosen is not profile.norm:
        raise InputError(
            f"--eps is needed: model {profile.name!r} has one for {profile.norm}, not for {chosen}"
        )
    return Lp(chosen, profile.eps)


def check_supported(plans: Mapping[str, Plan], threat: Threat) -> None:
    """Find out before the work starts whether every attack can keep to the threat.

    Raises:
        InputError: one cannot; the message names it and the threats that it takes.
    """
    from robustbench_lite.threat import Lp

    for name, plan in plans.items():
        if plan.supports(threat):
            continue
        free = replace(threat, queries=None)  # type: ignore[type-var]  # a dataclass
        if threat.queries is not None and plan.supports(free):
            raise UnsupportedError(
                f"attack {name!r} cannot keep to a cap of queries; leave out --queries, "
                "or give another --attack"
            )
        ball = isinstance(threat, Lp)
        asked = f"{threat.norm} with eps {threat.eps:g}" if isinstance(threat, Lp) else str(threat)
        norms, others = reach_of(plan, threat.eps if isinstance(threat, Lp) else 0.5)
        remedies = [f"give --norm {' or '.join(norms)} with its --eps"] if norms else []
        remedies += [f"give --threat {' or '.join(others)}"] if others else []
        if not remedies and ball:
            remedies = ["give another --eps"]
        raise UnsupportedError(
            f"attack {name!r} does not support {asked}; "
            f"{', or '.join([*remedies, 'another --attack'])}"
        )


def check_access(plans: Mapping[str, Plan], threat: Threat, model: Classifier) -> None:
    """Find out before the work starts whether every attack sees as much as it needs.

    Raises:
        InputError: one does not; the message lists the attacks that would.
    """
    given = min(threat.access, model.access)
    for name, plan in plans.items():
        if plan.least_access <= given:
            continue
        others = ", ".join(_content_with(given, threat)) or "none that is registered"
        raise UnsupportedError(
            f"attack {name!r} needs {plan.least_access.name.lower()}, but model {model.name!r} "
            f"and threat give {given.name.lower()} only; possible are {others}"
        )


def _content_with(access: Access, threat: Threat) -> list[str]:
    from robustbench_lite.attack import Plan
    from robustbench_lite.registry import Kind, find, load_attack, registered

    names = []
    for name in registered(Kind.ATTACKS):
        found = find(Kind.ATTACKS, name)
        if isinstance(found, Plan) or inspect.isclass(found):
            plan = load_attack(name)
            if plan.least_access <= access and plan.supports(threat):
                names.append(name)
    return names


def reach_of(plan: Plan, eps: float) -> tuple[list[str], list[str]]:
    """The norms in which a plan works at `eps`, and the names of the other threats."""
    from robustbench_lite.registry import Kind, load_threat, registered
    from robustbench_lite.threat import Lp, Norm

    norms = [str(norm) for norm in Norm if plan.supports(Lp(norm, eps))]
    others = [name for name in registered(Kind.THREATS) if plan.supports(load_threat(name))]
    return norms, others
