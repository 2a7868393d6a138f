"""Interleaved timing: every contender once a round, in an order that is rotated each round.

What the machine does meanwhile (heat, other jobs) then hits all contenders alike. Ratios are taken
within a round, and only then is their median taken.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Run = Callable[[int], Tensor | None]  # takes the round's number as seed; returns the adversarials


@dataclass
class Laps:
    """One contender: seconds and adversarial examples by round (a round may be missing)."""

    seconds: dict[int, float] = field(default_factory=dict)
    found: dict[int, Tensor] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds.values())

    @property
    def low(self) -> float:
        """Least seconds."""
        return min(self.seconds.values())

    @property
    def high(self) -> float:
        """Most seconds."""
        return max(self.seconds.values())


def measure(
    runs: Mapping[str, Run],
    repeats: int,
    *,
    once: Collection[str] = (),
    between: Callable[[], object] = lambda: None,
    keep: Callable[[int], bool] = lambda _round: True,
) -> dict[str, Laps]:
    """Time every run in `repeats` rounds.

    Args:
        runs: what is timed, by name; called with the round's number.
        repeats: rounds.
        once: names that take part in the first round only.
        between: called before and after each run, not timed.
        keep: of which rounds the adversarial examples are kept.
    """
    names = list(runs)
    laps = {name: Laps() for name in names}
    threads = torch.get_num_threads()
    for number in range(repeats):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if number and name in once:
                continue
            torch.manual_seed(number)
            np.random.seed(number)  # ART draws from numpy's global generator
            between()
            gc.collect()
            started = time.perf_counter()
            found = runs[name](number)
            laps[name].seconds[number] = time.perf_counter() - started
            between()
            if found is not None and keep(number):
                laps[name].found[number] = found.detach().cpu()
            if torch.get_num_threads() != threads:
                raise RuntimeError(f"{name} changed the number of threads: the round is worthless")
    return laps


def fastest(laps: Mapping[str, Laps], names: Sequence[str], number: int) -> float:
    """Seconds of the fastest of `names` in one round."""
    return min(laps[name].seconds[number] for name in names if number in laps[name].seconds)


def ratio(laps: Mapping[str, Laps], name: str, to: Sequence[str]) -> float | None:
    """Median over the rounds of seconds by those of the fastest of `to` in the same round."""
    ratios = [
        seconds / fastest(laps, to, number)
        for number, seconds in laps[name].seconds.items()
        if any(number in laps[other].seconds for other in to)
    ]
    return statistics.median(ratios) if ratios else None
