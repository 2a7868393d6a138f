"""Two models on the same samples: the paired difference, and what flipped."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.errors import InputError
from robustbench_lite.leaderboard import Board
from robustbench_lite.score import Bools
from robustbench_lite.stats import mcnemar, tango


@dataclass(frozen=True)
class Pair:
    """One accuracy of two models.

    Attributes:
        name: clean, robust, or a trial's name.
        before, after: the accuracy of the first and of the second.
        lost: samples that only the first gets right.
        gained: samples that only the second gets right.
        n: samples with results of both.
    """

    name: str
    before: float
    after: float
    lost: int
    gained: int
    n: int

    @property
    def drop(self) -> float:
        """By how much the second is worse."""
        return self.before - self.after

    @property
    def ci95(self) -> tuple[float, float]:
        """Tango's 95 % score interval of the drop."""
        return tango(self.lost, self.gained, self.n)

    @property
    def p(self) -> float:
        """Exact two-sided McNemar."""
        return mcnemar(self.lost, self.gained)


@dataclass(frozen=True)
class Comparison:
    """Clean, robust and every trial; and the samples that only one model withstands."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compared(board: Board, a: str, b: str) -> Comparison:
    """The first model against the second.

    Raises:
        InputError: one has no row, or they share no sample with results.
    """
    first, second = board.row(a), board.row(b)
    both = first.known & second.known
    if not both.any():
        raise InputError(f"{a} and {b} share no sample with results; go on with rbl bench")
    rows = [("clean", first.correct, second.correct), ("robust", first.robust, second.robust)]
    if len(board.trials) > 1:
        rows += [
            (s.name, s.robust, t.robust) for s, t in zip(first.scores, second.scores, strict=True)
        ]
    flipped = [
        tuple(name for name, here in zip(board.samples, which, strict=True) if here)
        for which in (
            both & first.robust & ~second.robust,
            both & second.robust & ~first.robust,
        )
    ]
    return Comparison(tuple(_pair(name, x, y, both) for name, x, y in rows), *flipped)


def _pair(name: str, x: Bools, y: Bools, both: Bools) -> Pair:
    n = int(both.sum())
    return Pair(
        name,
        before=float(x[both].mean()),
        after=float(y[both].mean()),
        lost=int((x & ~y & both).sum()),
        gained=int((y & ~x & both).sum()),
        n=n,
    )
