"""A benchmark as a value: which attacks in which threats, on which data, on how many samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from robustbench_lite.attack import Plan
from robustbench_lite.errors import InputError
from robustbench_lite.registry import Kind, find
from robustbench_lite.running import Precision
from robustbench_lite.threat import Lp, Threat


@dataclass(frozen=True)
class Trial:
    """One column of a leaderboard: an attack in a threat.

    Args:
        name: the column's name.
        attack: what attacks.
        threat: what it may do.

    Raises:
        InputError: the attack cannot keep to the threat.
    """

    name: str
    attack: Plan
    threat: Threat

    def __post_init__(self) -> None:
        if not self.attack.supports(self.threat):
            raise InputError(
                f"trial {self.name!r}: {self.attack} does not support {self.threat}; "
                "give another attack or threat"
            )


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Args:
        name: what people call it.
        trials: by what a data set's name starts with, since a usual eps belongs to a data set; ""
            is for all others.
        summary: one line on what it measures.
        data: the data set, as for `load_data`; None for the one on each model's card.
        n: number of samples.
        seed: which samples, and all random numbers.
        slice: samples a unit of work, which is what an interruption can lose.
        precision: of the search.

    Raises:
        InputError: there is no trial, two have one name, or `n` or `slice` is below 1.
    """

    name: str
    trials: Mapping[str, tuple[Trial, ...]]
    summary: str = ""
    data: str | None = None
    n: int = 1000
    seed: int = 0
    slice: int = 250
    precision: Precision = field(default=Precision.FLOAT32)

    def __post_init__(self) -> None:
        for setting, value in (("n", self.n), ("slice", self.slice)):
            if value < 1:
                raise InputError(f"suite {self.name!r}: {setting} is {value}; give 1 or more")
        if not self.trials or not all(self.trials.values()):
            raise InputError(f"suite {self.name!r} has no trial; give one or more")
        for trials in self.trials.values():
            names = [trial.name for trial in trials]
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"suite {self.name!r} has two trials called {name!r}")

    def _repr_html_(self) -> str:
        from robustbench_lite.displays.suite import html

        return html(self)

    def trials_on(self, data: str) -> tuple[Trial, ...]:
        """The trials for a data set.

        Raises:
            InputError: there are none.
        """
        near = [start for start in self.trials if data.startswith(start)]
        if not near:
            known = ", ".join(start for start in self.trials)
            raise InputError(
                f"suite {self.name!r} has no eps for data {data!r}, but for names that start with "
                f"{known}; give --eps, or a suite of your own"
            )
        return self.trials[max(near, key=len)]

    def at(self, eps: float) -> Suite:
        """The same suite with another eps in every norm, whatever the data.

        Raises:
            InputError: it has trials without a norm, or in several norms.
        """
        trials = next(iter(self.trials.values()))
        balls = [trial.threat for trial in trials if isinstance(trial.threat, Lp)]
        if len(balls) < len(trials) or len({ball.norm for ball in balls}) > 1:
            raise InputError(
                f"suite {self.name!r} is not about one norm, and has no single eps; leave out "
                "--eps, or write a suite of your own"
            )
        changed = tuple(
            replace(trial, threat=replace(ball, eps=eps))
            for trial, ball in zip(trials, balls, strict=True)
        )
        return replace(self, trials={"": changed})


def load_suite(name: str) -> Suite:
    """The suite registered under a name.

    Raises:
        InputError: there is none.
    """
    suite: Suite = find(Kind.SUITES, name)
    return suite


def slices(ids: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """The ids in parts of `size`, the last of which may be smaller."""
    return [tuple(ids[first : first + size]) for first in range(0, len(ids), size)]
