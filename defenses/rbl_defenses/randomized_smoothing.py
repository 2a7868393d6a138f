"""Randomized smoothing with a certificate (Cohen et al. 2019, arXiv:1902.02918)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from scipy.stats import binomtest, norm
from torch import Tensor
from torch.nn import functional

from robustbench_lite.certificate import Proof
from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Wrapping
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Norm


@dataclass(frozen=True)
class RandomizedSmoothing(Wrapping):
    """The class that most of many noisy copies of an image are given.

    `rbl attack` asks for the vote of `votes` copies; an adaptive attacker climbs the mean
    probabilities of the same copies (Salman et al. 2019, arXiv:1906.04584, section 2.2).
    `rbl certify` proves how far the answer holds in L2 (section 3.2.2 there, CERTIFY): it guesses
    the class from `guesses` copies and bounds its share among `draws` others from below
    (Clopper-Pearson); where the bound is not above one half it abstains. The net should be trained
    under as much noise: `rbl train --defense gaussian-augment --set sigma=0.25`.

    Args:
        sigma: standard deviation of the noise.
        votes: copies for one answer under attack.
        guesses: copies that the certificate guesses the class from; 100 in the paper.
        draws: copies that the certificate counts; 100000 in the paper.
        alpha: the probability that a certificate is wrong; 0.001 in the paper.
    """

    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    votes: Annotated[int, Field(ge=1)] = 32
    guesses: Annotated[int, Field(ge=1)] = 100
    draws: Annotated[int, Field(ge=1)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001

    def wrap(self, classifier: Classifier) -> Classifier:
        """The smoothed classifier."""
        return Smoothed(classifier, self)


class Smoothed(Classifier):
    """A classifier's vote over noisy copies; it can prove its answers.

    Attributes:
        norm: of the certificate.
        confidence: the least probability that one certificate holds.
    """

    norm = Norm.L2

    def __init__(self, inner: Classifier, how: RandomizedSmoothing) -> None:
        super().__init__(inner, classes=inner.classes, access=inner.access, name=inner.name)
        self.how = how
        self.confidence = 1 - how.alpha
        self.naive = inner.naive

    randomized = True
    averages = True

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """(N, K) shares of the votes; their gradient is that of the log mean probabilities."""
        if rng is None:
            rng = Rng(torch.randint(2**62, (len(x),), device=x.device))
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self._shares(x, rng, self.how.votes)
        answers = [self._noisy(x, rng, number) for number in range(self.how.votes)]
        votes = torch.stack([_votes(answer.detach()) for answer in answers]).mean(0)
        seen = answers[:1] if self.naive else answers
        climbed = torch.stack([answer.log_softmax(1) for answer in seen]).logsumexp(0)
        return climbed + (votes - climbed).detach()

    def certify(self, x: Tensor, rng: Rng) -> Proof:
        """The class and the L2 radius that are proven of each image (N, C, H, W)."""
        how = self.how
        guess = self._shares(x, rng.branch(0), how.guesses).argmax(1)
        shares = self._shares(x, rng.branch(1), how.draws)
        share = shares.gather(1, guess[:, None])[:, 0].double()
        counts = (share.nan_to_num(0.0) * how.draws).round().long()  # no answer, no proof
        radius = torch.tensor([self._radius(count) for count in counts.tolist()])
        radius = radius.double().to(x.device)
        return Proof(torch.where(radius > 0, guess, -1), radius)

    def _radius(self, count: int) -> float:
        exact = binomtest(count, self.how.draws, alternative="greater")
        least = exact.proportion_ci(self.confidence, method="exact").low
        return float(self.how.sigma * norm.ppf(least)) if least > 0.5 else 0.0

    def _noisy(self, x: Tensor, rng: Rng, number: int) -> Tensor:
        own = rng.branch(number)
        noise = self.how.sigma * own.normal(*x.shape[1:]).to(x.dtype)
        return super().forward(x + noise, own)

    def _shares(self, x: Tensor, rng: Rng, copies: int) -> Tensor:
        total = torch.stack([_votes(self._noisy(x, rng, i)).double() for i in range(copies)])
        return (total.sum(0) / copies).float()


def _votes(logits: Tensor) -> Tensor:
    """(N, K) one for the class; NaN where a logit is not finite, which the judge must see."""
    votes = functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
    return votes.where(torch.isfinite(logits).all(1, keepdim=True), torch.nan)
