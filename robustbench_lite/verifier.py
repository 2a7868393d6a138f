"""The original model is asked about every example that a search claims."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.classifier import ask_afresh
from robustbench_lite.doubts import CONFIRMING, VOTES
from robustbench_lite.geometry import in_box
from robustbench_lite.inference import Original
from robustbench_lite.loss import reached
from robustbench_lite.running import Settings
from robustbench_lite.threat import Threat

FIRST = range(1, VOTES + 1)
_CONFIRMING = range(VOTES + 1, VOTES + CONFIRMING + 1)


@dataclass(frozen=True, eq=False)
class Verifier:
    """Whether examples hold.

    Attributes:
        original: who is asked.
        threat: renders proposals.
        x: (N, C, H, W) the samples.
        targets: (N,) the class to leave or, with a targeted goal, the class to reach.
        targeted: is there a class to reach?
        draws: the model's answers are drawn, so that most of many have to agree, twice.
        random: a model that remembers its answers has to forget them.
        settings: how to ask.
    """

    original: Original
    threat: Threat
    x: Tensor
    targets: Tensor
    targeted: bool
    draws: bool
    random: bool
    settings: Settings

    def classes_of(self, rows: Tensor, adv: Tensor, occasion: str) -> Tensor:
        """(M,) the class that the model gives each proposal, -1 where the goal is not reached.

        Args:
            rows: (M,) whose samples the proposals are.
            adv: (M, ...) the proposals.
            occasion: decides the draws.
        """
        images = self.threat.render(self.x[rows], adv)
        holds = in_box(images)
        label = torch.full((len(rows),), -1)
        for votes in [FIRST, _CONFIRMING] if self.draws else [range(1)]:
            some = holds.nonzero().flatten()
            if not len(some):
                break
            asked = images if len(some) == len(images) else images[some]
            holds[some], label[some] = self._fooled(asked, rows[some], occasion, votes)
        return label.masked_fill(~holds, -1)

    def _fooled(
        self, images: Tensor, rows: Tensor, occasion: str, votes: range
    ) -> tuple[Tensor, Tensor]:
        """(M,) bool: do most answers reach the goal? And (M,) the class of the first that does."""
        y = self.targets[rows]
        count, label = torch.zeros_like(rows), torch.full_like(rows, -1)
        ask_afresh(self.original.classifier, True)
        for logits in self.original.answers(images, rows, occasion, self.settings, votes):
            hit = reached(logits, y, targeted=self.targeted)
            label = torch.where(hit & (label < 0), logits.argmax(1), label)
            count += hit
        ask_afresh(self.original.classifier, self.random)
        return count * 2 > len(votes), label
