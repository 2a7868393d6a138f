"""Reasons not to trust the figures, from what an evaluation sees anyway."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.health import Health
from robustbench_lite.inference import predict
from robustbench_lite.loss import margin
from robustbench_lite.running import Settings
from robustbench_lite.stats import wilson
from robustbench_lite.tally import NOT_FINITE, Tally
from robustbench_lite.trust import Doubt, fail, warn

_ENOUGH_TO_TELL = 100
_PROBE = 32
_UNDERFLOW = 80.0  # a class that lies so far behind has probability 0 in float32
_RISING = 0.05
_BLINDLY_WARN, _BLINDLY_FAIL = 0.002, 0.02
_FEW = 2
_LYING = 0.5
_DISAGREE = 0.002  # of the samples


def about_chance(correct: Tensor, classes: int) -> list[Doubt]:
    """A wrong normalisation or a wrong order of the classes shows as a guess."""
    low, _ = wilson(int(correct.sum()), len(correct))
    if low > 1 / classes or len(correct) < _ENOUGH_TO_TELL:
        return []
    return [
        fail(
            f"clean accuracy is not above chance (1 in {classes}): "
            "check the model's normalisation (mean, std, bounds) and the order of its classes"
        )
    ]


def about_randomness(
    classifier: Classifier, x: Tensor, clean: Tensor, settings: Settings, eot: int, votes: int
) -> tuple[bool, list[Doubt]]:
    """Must attackers average over `eot` passes, and verdicts be the majority of `votes`?

    Args:
        classifier: which one.
        x: (N, C, H, W) images.
        clean: (N, K) what it answered about them.
        settings: how it was asked.
        eot: how many passes an attacker would take.
        votes: how many passes a verdict would take.
    """
    if classifier.naive:
        return False, [fail("the attack does not know of the defenses: this is not robustness")]
    if classifier.averages:
        return False, [warn("the defense is random: every verdict is one more draw")]
    so = f"gradients are averaged over {eot} passes, and a verdict is the majority of {votes}"
    if classifier.randomized:
        return True, [warn(f"the defense is random: {so}")]
    first = clean[:_PROBE]
    again = predict(classifier, x[:_PROBE], settings)
    both = torch.isfinite(again) & torch.isfinite(first)
    apart = torch.where(both, (again - first).abs(), 0)
    if not bool((apart > 1e-4 * torch.where(both, first.abs(), 0).max()).any()):
        return False, []
    return True, [warn(f"the model is random: {so}; another run can give another figure")]


def are_probabilities(clean: Tensor) -> bool:
    """Do all outputs (N, K) lie in [0, 1] and sum to 1?"""
    finite = clean[torch.isfinite(clean).all(1)]
    sums = (finite.sum(1) - 1).abs() < 1e-3
    return bool(len(finite) and ((finite >= 0) & (finite <= 1)).all() and sums.all())


def about_outputs(clean: Tensor, y: Tensor) -> list[Doubt]:
    """Outputs for which the usual losses have no gradient."""
    if are_probabilities(clean):
        return [
            warn(
                "the outputs are probabilities, whose gradients vanish: searched on their "
                "logarithms; let the model return logits"
            )
        ]
    lead = (-margin(clean, y)).abs()
    if bool(lead.median() > _UNDERFLOW):
        return [
            warn(
                f"logits lie {float(lead.median()):.3g} apart, where cross-entropy has no "
                "gradient: searched on rescaled logits"
            )
        ]
    return []


def about_gradients(health: Health, *, blind: bool) -> list[Doubt]:
    """Gradients that do not tell where the margin rises.

    Args:
        health: what the probe saw.
        blind: attacks without gradients run too.
    """
    if not health.hidden:
        return []
    seen = (
        f"gradients are zero on {100 * health.flat:.0f} % of the images probed"
        if health.flat > 0
        else f"gradients foretell differences of the margin with cosine {health.agreement:.2f} only"
    )
    if blind:
        return [warn(f"{seen}: a search without gradients was added")]
    say = fail if health.agreement < _LYING else warn
    return [say(f"{seen}: add an attack without gradients, such as square")]


def about_claims(tally: Tally, disagreed: int, unverified: int) -> list[Doubt]:
    """Adversarial examples that did not hold, and samples without a verdict.

    Args:
        tally: what was found.
        disagreed: how often the faster copy was fooled and the original model was not.
        unverified: how often the original model itself was not fooled when asked again.
    """
    found: list[Doubt] = []
    if unverified:
        found.append(
            warn(
                f"{unverified} adversarial examples did not fool the original model when it was "
                "asked again, and are not counted"
            )
        )
    if disagreed >= _FEW and disagreed > _DISAGREE * len(tally.x):
        found.append(
            warn(
                f"the faster copy and the original model disagreed on {disagreed} adversarial "
                "examples, which were searched again on the original"
            )
        )
    errors = int(tally.no_verdict.sum())
    if errors:
        found.append(fail(f"{errors} samples have no verdict: {NOT_FINITE}"))
    return found


def about_search(tally: Tally, attackable: Tensor) -> list[Doubt]:
    """What the course of the search gives away."""
    found: list[Doubt] = []
    n = len(attackable)
    blindly = int(tally.blindly.sum())
    if blindly >= _FEW and blindly > _BLINDLY_WARN * n:
        say = fail if blindly > _BLINDLY_FAIL * n else warn
        found.append(
            say(
                f"{blindly} samples were broken only without gradients: gradients may hide more; "
                "give more queries or an attack made for this defense"
            )
        )
    left = tally.robust & attackable
    rising = int((tally.rising & left).sum())
    if rising >= _FEW and rising > _RISING * int(left.sum()):
        found.append(
            warn(
                f"on {rising} of {int(left.sum())} survivors the loss was still rising when the "
                "search ended: give more steps"
            )
        )
    return found
