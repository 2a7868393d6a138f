"""What the leaderboard's page and its charts show, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from robustbench_lite.trust import Trust


@dataclass(frozen=True)
class Trial:
    """One attack under one threat, as text."""

    name: str
    attack: str
    threat: str


@dataclass(frozen=True)
class Attacked:
    """What one trial left of one model.

    Attributes:
        robust: robust accuracy, a share.
        ci: its 95 % interval.
        mean_size: mean size of the adversarial examples, in the threat's own unit.
        queries: mean number of queries a sample.
        trust: how far to trust the figure.
    """

    robust: float
    ci: tuple[float, float]
    mean_size: float | None
    queries: float
    trust: Trust = Trust.OK


@dataclass(frozen=True)
class Curve:
    """Robust accuracy over eps, all four of equal length.

    Attributes:
        eps: allowed sizes, rising.
        robust: robust accuracy at each, a share.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
    """

    eps: Sequence[float]
    robust: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        _check_equal(eps=self.eps, robust=self.robust, low=self.low, high=self.high)


@dataclass(frozen=True)
class Queried:
    """Robust accuracy over the queries that the attacker may spend on a sample.

    Attributes:
        queries: numbers of queries, rising.
        robust: robust accuracy after each, a share.
    """

    queries: Sequence[float]
    robust: Sequence[float]

    def __post_init__(self) -> None:
        _check_equal(queries=self.queries, robust=self.robust)


@dataclass(frozen=True)
class Class:
    """How the n samples of one class fared, as shares."""

    label: int
    n: int
    clean: float
    robust: float


@dataclass(frozen=True)
class Push:
    """How many samples of one class the attacks pushed into another."""

    from_: int
    to: int
    count: int


@dataclass(frozen=True)
class Example:
    """One image and its adversarial example.

    Attributes:
        model: the model that was fooled.
        trial: the name of the trial.
        id: the sample's id.
        label: its class.
        to: what the model calls the adversarial example.
        size: size of the perturbation, in the threat's own unit.
        image: a PNG in base64, without a prefix.
        adversarial: the same of the adversarial example.
    """

    model: str
    trial: str
    id: str
    label: int
    to: int
    size: float
    image: str
    adversarial: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model's row. None stands for what was not measured.

    Attributes:
        rank: 1 is best; models that cannot be told apart share one; None while samples are missing.
        model: its name.
        summary: one line about it.
        parameters: number of weights.
        clean: clean accuracy, a share, with its 95 % interval `clean_ci`.
        robust: robust accuracy over all trials, a share, with its 95 % interval `robust_ci`.
        attacks: what each trial left, by its name.
        mean_size: mean size of the smallest adversarial examples.
        auc: mean robust accuracy over eps, a share.
        mce: mean corruption error, a share.
        queries: mean number of queries a sample.
        seconds: time of all trials.
        trust: how far to trust the figures, and `doubts`, why not.
        missing: samples without a result.
        card: the model's card; values are text, numbers, lists or one more level of the same.
        curve: robust accuracy over eps.
        by_queries: robust accuracy over queries.
        by_class: a figure for each class.
        confusion: where the attacks push.
    """

    rank: int | None
    model: str
    summary: str = ""
    parameters: int | None = None
    clean: float
    clean_ci: tuple[float, float]
    robust: float
    robust_ci: tuple[float, float]
    attacks: Mapping[str, Attacked]
    mean_size: float | None = None
    auc: float | None = None
    mce: float | None = None
    queries: float
    seconds: float | None = None
    trust: Trust = Trust.OK
    doubts: Sequence[str] = ()
    missing: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)
    curve: Curve | None = None
    by_queries: Queried | None = None
    by_class: Sequence[Class] = ()
    confusion: Sequence[Push] = ()


@dataclass(frozen=True)
class Board:
    """One ranked table.

    Attributes:
        suite: name of the suite.
        data: name of the data.
        n: number of samples.
        seed: seed of the sample and of the attacks.
        trials: what every model went through.
        entries: the models, best first.
        classes: names of the classes.
        gallery: some adversarial examples.
    """

    suite: str
    data: str
    n: int
    seed: int
    trials: Sequence[Trial]
    entries: Sequence[Entry]
    classes: Sequence[str]
    gallery: Sequence[Example] = ()


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: the page's heading.
        made: the date.
        command: the command that made it.
        versions: version of each library that decides the figures.
        boards: the tables.
    """

    title: str
    made: str
    command: str
    versions: Mapping[str, str]
    boards: Sequence[Board]

    def to_json(self) -> str:
        """All of it as one line of JSON.

        Raises:
            ValueError: a number is NaN or infinite, which JSON has no word for.
        """
        return json.dumps(plain(self), allow_nan=False, separators=(",", ":"))


def plain(piece: Report | Entry) -> dict[str, Any]:
    """A piece of a report as JSON's types."""
    return asdict(piece, dict_factory=_named)


def _named(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """`from` is a word of Python, so the field is called `from_`."""
    return {name.rstrip("_"): value for name, value in items}


def _check_equal(**columns: Sequence[float]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
