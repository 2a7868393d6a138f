"""How far a figure can be trusted, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Trust(StrEnum):
    """What an evaluation says of its own figures, best first."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Doubt:
    """One reason not to trust a figure.

    Attributes:
        trust: `warn`, look closer; `fail`, the figure is no measurement of robustness.
        why: what was seen and what to do, for people.
    """

    trust: Trust
    why: str

    def __str__(self) -> str:
        return self.why

    def to_json(self) -> dict[str, str]:
        """Both, as JSON's types."""
        return {"trust": str(self.trust), "why": self.why}


def warn(why: str) -> Doubt:
    """A reason to look closer."""
    return Doubt(Trust.WARN, why)


def fail(why: str) -> Doubt:
    """A reason that the figure is no measurement of robustness."""
    return Doubt(Trust.FAIL, why)


def least(doubts: Iterable[Doubt]) -> Trust:
    """The trust that is left after all doubts."""
    return least_of(doubt.trust for doubt in doubts)


def least_of(each: Iterable[Trust]) -> Trust:
    """The least trust of several, `ok` of none."""
    return max(each, key=list(Trust).index, default=Trust.OK)
