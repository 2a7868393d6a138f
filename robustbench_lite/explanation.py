"""Where a classifier looks, before and after an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset, content_of
from robustbench_lite.errors import InputError
from robustbench_lite.passes import Passes
from robustbench_lite.results import Outcome
from robustbench_lite.rng import key_of
from robustbench_lite.threat import Access

_DRAWS = 20
_PLACES = 8


@runtime_checkable
class Attentive(Protocol):
    """A module whose attention can be looked at."""

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """Of each layer (N, heads, tokens, tokens), rows that sum to 1; the class's token first."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Some samples of an outcome, and where the classifier looks on each.

    Attributes:
        outcome: of which the samples are.
        which: their positions in it.
        x: (M, C, H, W) images.
        adversarials: (M, C, H, W); where the attack broke nothing, the image itself.
        before: (M,) the class that the classifier sees in each image.
        after: (M,) in each adversarial example.
        seen_before: (M, H, W) in [0, 1], how much each pixel counts for that class.
        seen_after: the same of the adversarial examples.
        how: what those maps are.
    """

    outcome: Outcome
    which: tuple[int, ...]
    x: Tensor
    adversarials: Tensor
    before: Tensor
    after: Tensor
    seen_before: Tensor
    seen_after: Tensor
    how: str


def explain(
    classifier: Classifier, data: Dataset, outcome: Outcome, count: int, *, width: int = 256
) -> Explanation:
    """Look at the first `count` samples that the attack broke; at others if it broke fewer.

    The maps are the roll-out of the attention where the module shows it, else the gradient of the
    class's logit, else, for a classifier without gradients, what it loses when a square is hidden.

    Args:
        classifier: that was attacked.
        data: the samples of the outcome.
        outcome: what the attack found.
        count: samples to look at.
        width: images asked at a time.

    Raises:
        InputError: the outcome is not about these samples, or `count` is below 1.
    """
    if tuple(r.id for r in outcome.records) != data.ids:
        raise InputError("the outcome is about other samples; give the data that were attacked")
    if count < 1:
        raise InputError(f"{count} samples leave nothing to show; give 1 or more")
    ranked = sorted(range(len(data)), key=lambda i: _interest(outcome, i))
    which = sorted(ranked[:count])
    x, adversarials = data.x[which], outcome.adversarials[which]
    keys = torch.tensor([key_of("explain", outcome.seed, content_of(data.ids[i])) for i in which])
    eot = _DRAWS if classifier.randomized and not classifier.averages else 1
    passes = Passes(classifier, width, eot=eot)
    before, seen_before, how = _look(passes, x, keys)
    after, seen_after, _ = _look(passes, adversarials, keys)
    return Explanation(
        outcome, tuple(which), x, adversarials, before, after, seen_before, seen_after, how
    )


def _interest(outcome: Outcome, i: int) -> int:
    record = outcome.records[i]
    return 0 if record.correct and not record.robust else 1 if record.robust else 2


def _look(passes: Passes, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, str]:
    """The classes (M,) that are seen in `x`, the maps (M, H, W), and what they are."""
    classifier = passes.classifier
    x, keys = x.to(classifier.device), keys.to(classifier.device)
    labels = passes.logits(x, keys).argmax(1)
    module = classifier.model
    if type(classifier) is Classifier and isinstance(module, Attentive):
        with torch.no_grad():
            maps = rollout(module.attention_maps(x * classifier.scale + classifier.shift))
        seen, how = functional.interpolate(maps[:, None], x.shape[2:])[:, 0], "attention roll-out"
    elif classifier.access >= Access.GRADIENTS:
        seen, how = saliency(passes, x, labels, keys), "gradient saliency"
    else:
        seen, how = occlusion(passes, x, labels, keys), "loss when hidden"
    return labels.cpu(), _scaled(seen).cpu(), how


def rollout(layers: list[Tensor]) -> Tensor:
    """(M, rows, columns) how much of each patch reaches the class's token.

    Attention and the way around it in equal parts, multiplied over the layers (Abnar and Zuidema
    2020, arXiv:2005.00928, section 3.1); heads are averaged.
    """
    tokens = layers[0].shape[3]
    same = torch.eye(tokens, device=layers[0].device)
    flow = same.expand(len(layers[0]), tokens, tokens)
    for weights in layers:
        flow = (0.5 * weights.mean(1) + 0.5 * same) @ flow
    side = round((tokens - 1) ** 0.5)
    return flow[:, 0, 1:].reshape(-1, side, side)


def saliency(passes: Passes, x: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
    """(M, H, W) the gradient of the class's logit, of the channel where it is largest.

    Simonyan et al. 2014, arXiv:1312.6034, section 3.1.
    """
    _, slopes = passes.slopes(x, lambda logits: [logits.gather(1, labels[:, None])], keys)
    return slopes[:, 0].abs().amax(1)


def occlusion(passes: Passes, x: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
    """(M, H, W) how far the class's logit falls when a square is hidden behind the mean colour.

    Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2.
    """
    rows, columns = x.shape[2:]
    side = max(1, max(rows, columns) // _PLACES)
    whole = passes.logits(x, keys).gather(1, labels[:, None])[:, 0]
    seen = torch.zeros(len(x), rows, columns, device=x.device)
    colour = x.mean((2, 3), keepdim=True)
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            place = (slice(top, top + side), slice(left, left + side))
            hidden = x.clone()
            hidden[:, :, *place] = colour
            left_over = passes.logits(hidden, keys).gather(1, labels[:, None])[:, 0]
            seen[:, *place] = (whole - left_over).clamp(min=0)[:, None, None]
    return seen


def _scaled(seen: Tensor) -> Tensor:
    """Each map from 0 to 1."""
    low, high = seen.amin((1, 2), keepdim=True), seen.amax((1, 2), keepdim=True)
    return (seen - low) / (high - low).clamp(min=1e-12)
