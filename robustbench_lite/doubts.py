"""Reasons not to trust the figures that show before any attack."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.engine import Settings
from robustbench_lite.inference import predict
from robustbench_lite.stats import wilson

_ENOUGH_TO_TELL = 100
_PROBE = 32


def about_chance(correct: Tensor, classes: int) -> list[str]:
    """A wrong normalisation or a wrong order of the classes shows as a guess."""
    low, _ = wilson(int(correct.sum()), len(correct))
    if low > 1 / classes or len(correct) < _ENOUGH_TO_TELL:
        return []
    return [
        f"clean accuracy is not above chance (1 in {classes}): "
        "check the model's normalisation (mean, std, bounds) and the order of its classes"
    ]


def about_randomness(
    classifier: Classifier, x: Tensor, clean: Tensor, settings: Settings, eot: int
) -> tuple[bool, list[str]]:
    """Must attackers average over `eot` passes?

    Args:
        classifier: which one.
        x: (N, C, H, W) images.
        clean: (N, K) what it answered about them.
        settings: how it was asked.
        eot: how many passes an attacker would take.
    """
    if classifier.naive:
        return False, ["the attack does not know of the defenses: this is not robustness"]
    if classifier.averages:
        return False, ["the defense is random: every verdict is one more draw"]
    if classifier.randomized:
        return True, [
            f"the defense is random: gradients are averaged over {eot} draws, "
            "and every verdict is one more draw"
        ]
    first = clean[:_PROBE]
    again = predict(classifier, x[:_PROBE], settings)
    both = torch.isfinite(again) & torch.isfinite(first)
    apart = torch.where(both, (again - first).abs(), 0)
    if not bool((apart > 1e-4 * torch.where(both, first.abs(), 0).max()).any()):
        return False, []
    return True, [
        f"the model is random: gradients are averaged over {eot} passes, "
        "and another run can give another figure"
    ]
