"""Do attack, threat, model and goal go together? Asked before any work starts."""

from dataclasses import replace

from robustbench_lite.attack import Plan
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.goal import Goal, Targeted
from robustbench_lite.threat import Threat


def check_fit(
    attack: Plan, threat: Threat, classifier: Classifier, goal: Goal, source: Classifier | None
) -> None:
    """Refuse what cannot be evaluated.

    Raises:
        UnsupportedError: the attack cannot keep to the threat, cannot reach for a class, needs more
            access than it is given, or makes no sense on a surrogate.
    """
    if not attack.supports(threat):
        raise UnsupportedError(
            f"{attack} does not work in the threat {threat}; "
            "choose another threat or another attack (rbl show NAME lists what it supports)"
        )
    attacks = attack.attacks(as_seen(threat, classifier, source))
    if isinstance(goal, Targeted) and not all(a.targetable for a in attacks):
        raise UnsupportedError(
            f"{attack} cannot reach for a class, as its paper has no targeted form; "
            "leave the goal untargeted or choose another attack"
        )
    if source is not None and any(a.minimal for a in attacks):
        raise UnsupportedError(
            f"{attack} shrinks the perturbation, which on a surrogate says nothing of the model; "
            "choose an attack at a fixed eps"
        )
    given = as_seen(threat, classifier, source).access
    if attack.least_access > given:
        raise UnsupportedError(
            f"{attack} needs {attack.least_access.name.lower()}, but model and threat give "
            f"{given.name.lower()} only; choose an attack that needs no more"
        )


def as_seen(threat: Threat, classifier: Classifier, source: Classifier | None) -> Threat:
    """The threat with the access that an attack has in it: no more than the model asked gives."""
    given = min(threat.access, classifier.access) if source is None else source.access
    return replace(threat, access=given)  # type: ignore[type-var]  # threats are dataclasses
