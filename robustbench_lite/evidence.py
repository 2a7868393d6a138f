"""What an evaluation saw that tells how far its figures can be trusted; it adds up over parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

_SOUND = 0.9  # 16 sound nets have .93 and more, quantised, JPEG and k-WTA ones under .5
_FLAT = 0.5  # share of images without a gradient


@dataclass(frozen=True)
class Health:
    """What a probe of the gradients saw.

    Attributes:
        agreement: mean cosine between differences of the margin and what gradients foretell, 1 for
            a smooth model; 0 where there is no gradient.
        flat: share of the images at which the gradient is zero.
        images: how many were probed.
    """

    agreement: float
    flat: float
    images: int

    @property
    def hidden(self) -> bool:
        """Do gradients mislead?"""
        return self.agreement < _SOUND or self.flat > _FLAT


class Randomness(StrEnum):
    """Is the model random, and how does one know?"""

    NONE = "none"
    DECLARED = "declared"
    FOUND = "found"
    AVERAGED = "averaged"


@dataclass(frozen=True)
class Evidence:
    """What was seen of some samples; the sum of two is what was seen of both.

    Attributes:
        n: number of samples.
        classes: number of logits.
        correct: how many the model gets right.
        errors: how many have no verdict.
        naive: the attack did not know of the defenses.
        randomness: of the model.
        probabilities: its outputs are probabilities.
        apart: by how much the label's logit leads or lies behind, the median.
        health: of its gradients; None where nobody followed them.
        blind: attacks without gradients ran too.
        disagreed: how often the faster copy was fooled and the original was not.
        unverified: how often the original was not fooled when it was asked again.
        blindly: how many were broken without gradients only.
        left: how many survived.
        rising: on how many of them the loss was still rising.
        above: how many the model takes for the class after their own.
        below: how many for the class before.
    """

    n: int
    classes: int
    correct: int
    errors: int = 0
    naive: bool = False
    randomness: Randomness = Randomness.NONE
    probabilities: bool = False
    apart: float = 0.0
    health: Health | None = None
    blind: bool = False
    disagreed: int = 0
    unverified: int = 0
    blindly: int = 0
    left: int = 0
    rising: int = 0
    above: int = 0
    below: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        """What was seen of other samples of the same model under the same plan, added."""
        counted = (
            *("n", "correct", "errors", "above", "below"),
            *("disagreed", "unverified", "blindly", "left", "rising"),
        )
        sums: dict[str, Any] = {k: getattr(self, k) + getattr(other, k) for k in counted}
        return replace(
            self,
            randomness=max(self.randomness, other.randomness, key=list(Randomness).index),
            probabilities=self.probabilities and other.probabilities,
            apart=(self.n * self.apart + other.n * other.apart) / (self.n + other.n),
            health=_both(self.health, other.health),
            blind=self.blind or other.blind,
            **sums,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON's types."""
        return asdict(self)


def evidence_from(values: object) -> Evidence:
    """What `to_json` gave.

    Raises:
        pydantic.ValidationError: it is something else.
    """
    return _READER.validate_python(values)


_READER = TypeAdapter(Evidence)


def _both(a: Health | None, b: Health | None) -> Health | None:
    if a is None or b is None:
        return a or b
    images = a.images + b.images
    return Health(
        (a.agreement * a.images + b.agreement * b.images) / images,
        (a.flat * a.images + b.flat * b.images) / images,
        images,
    )
