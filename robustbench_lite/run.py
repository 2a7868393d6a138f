"""Run a suite: units that are not yet stored are computed, by whoever computes, in any order."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustbench_lite.card import Card, Profile
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset, checked_for, rank_of
from robustbench_lite.errors import InputError, RblError
from robustbench_lite.executor import Executor
from robustbench_lite.fit import check_fit
from robustbench_lite.goal import Untargeted
from robustbench_lite.identity import described, described_plan, digest, digest_of_model
from robustbench_lite.store import Store
from robustbench_lite.suite import Suite, Trial, slices
from robustbench_lite.threat import Access
from robustbench_lite.unit import FORMAT, Unit, versions

_TRIES = 3
_PATIENCE = 0.2  # seconds until units that others work on are looked at again


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model that takes part.

    Args:
        classifier: the model itself.
        profile: its card, where it has one.
        spec: how another process loads it; None if it cannot, and is sent itself.
    """

    classifier: Classifier
    profile: Profile | None = None
    spec: str | None = None


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of a leaderboard: a model in a suite, and the units that tell how it did."""

    units: tuple[Unit, ...]
    content: bytes
    key: str


@dataclass(frozen=True)
class Stand:
    """How far a run is: units done, of these found in the store, all units, what is at work."""

    done: int
    found: int
    total: int
    at_work: str = ""


@dataclass
class Tally:
    """What a run did.

    Attributes:
        computed: units computed here.
        found: units that the store had, or that others wrote meanwhile.
        failed: units given up, and why.
    """

    computed: int = 0
    found: int = 0
    failed: dict[Unit, str] = field(default_factory=dict)


def entry_of(
    suite: Suite,
    contestant: Contestant,
    data: Dataset,
    data_spec: str | None = None,
    *,
    batch_size: int | None = 256,
    device: str = "cpu",
    compiled: bool = False,
) -> Entry:
    """What there is to do for one model.

    Args:
        suite: the benchmark.
        contestant: the model.
        data: all samples, of which the suite's `n` are drawn.
        data_spec: how another process loads them; None if they are sent.
        batch_size: samples attacked side by side.
        device: where to compute.
        compiled: search on compiled copies.

    Raises:
        InputError: data and model do not belong together, or the suite has nothing for the data.
        UnsupportedError: the model gives less than an attack needs.
    """
    classifier, name = contestant.classifier, contestant.classifier.name
    trials = suite.trials_on(data.name)
    for trial in trials:
        check_fit(trial.attack, trial.threat, classifier, Untargeted(), None)
    if contestant.profile is not None and contestant.profile.classes:
        checked_for(data, contestant.profile.classes)
    chosen = data.sample(suite.n, suite.seed)
    # Ranked, so that the first slices of a larger n are those of a smaller one.
    ids = sorted(chosen.ids, key=lambda sample: rank_of(suite.seed, sample))
    parts = slices(ids, suite.slice)
    weights = digest_of_model(classifier)
    units = [
        [
            Unit(
                model=classifier if contestant.spec is None else contestant.spec,
                model_name=name,
                model_digest=weights,
                data=chosen if data_spec is None else data_spec,
                ids=part,
                trial=trial,
                seed=suite.seed,
                precision=suite.precision,
                batch_size=batch_size,
                device=device,
                compiled=compiled,
            )
            for part in parts
        ]
        for trial in trials
    ]
    told = {
        "format": FORMAT,
        "suite": suite.name,
        "summary": suite.summary,
        "data": data.name,
        "n": len(ids),
        "seed": suite.seed,
        "precision": str(suite.precision),
        "slice": suite.slice,
        "classes": list(data.classes or ()),
        "trials": [_told_trial(trial) for trial in trials],
        "model": name,
        "model_digest": weights,
        "card": _told_card(contestant),
        "samples": ids,
        "units": [[unit.key for unit in row] for row in units],
    }
    lines = [told, {"versions": versions(), "made": time.strftime("%Y-%m-%d")}]
    content = b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines)
    return Entry(tuple(unit for row in units for unit in row), content, digest(told))


def _told_trial(trial: Trial) -> dict[str, Any]:
    attacks = trial.attack.attacks(trial.threat)
    return {
        "name": trial.name,
        "attack": str(trial.attack),
        "threat": str(trial.threat),
        "minimal": all(attack.minimal for attack in attacks),
        "steps": max((a.steps for a in attacks if a.needs is Access.GRADIENTS), default=0),
        "values": trial.threat.to_json(),
        "exactly": digest(described([described_plan(trial.attack, trial.threat), trial.threat])),
    }


def _told_card(contestant: Contestant) -> dict[str, Any]:
    profile = contestant.profile
    if profile is None:
        parameters = sum(p.numel() for p in contestant.classifier.parameters())
        return {"parameters": parameters}
    told = profile.model_dump(mode="json", exclude={"name"})
    if isinstance(profile, Card):
        told = {k: v for k, v in told.items() if k not in ("measured", "beside")}
    return told


def run(
    entries: Sequence[Entry],
    store: Store,
    executor: Executor,
    *,
    shard: tuple[int, int] = (1, 1),
    report: Callable[[Stand], None] | None = None,
) -> Tally:
    """Compute what the store lacks; a unit that fails three times is given up.

    Args:
        entries: what there is to do.
        store: what is known, and where it goes.
        executor: who computes.
        shard: (i, N): the i-th of N parts of the units, from 1.
        report: called as units are done.

    Raises:
        IncompleteError: the store cannot be written; what was written stays.
        InputError: there is no such shard.
    """
    number, parts = shard
    if not 1 <= number <= parts:
        raise InputError(
            f"shard {number}/{parts} does not exist; give 1/{parts} to {parts}/{parts}"
        )
    store.clean()
    for entry in entries:
        if not store.has("entries", entry.key):
            store.write("entries", entry.key, entry.content)
    units = {unit.key: unit for entry in entries for unit in entry.units}
    mine = list(units.values())[number - 1 :: parts]
    return _Run(mine, store, executor, report or (lambda stand: None)).run()


class _Run:
    def __init__(
        self,
        units: Iterable[Unit],
        store: Store,
        executor: Executor,
        report: Callable[[Stand], None],
    ) -> None:
        self.waiting = deque(units)
        self.total = len(self.waiting)
        self.store, self.executor, self.report = store, executor, report
        self.tries: Counter[str] = Counter()
        self.tally = Tally()
        self.running = 0

    def run(self) -> Tally:
        with self.executor:
            while self.waiting or self.running:
                self._fill()
                if self.running:
                    self._take(*self.executor.next())
                elif self.waiting:
                    time.sleep(_PATIENCE)  # others are at work on all that is left
        self._tell("")
        return self.tally

    def _fill(self) -> None:
        """Hand out what is free to be done."""
        for _ in range(len(self.waiting)):
            if self.running >= self.executor.slots:
                return
            unit = self.waiting.popleft()
            if not self.store.claim(unit.key):
                self.waiting.append(unit)
                continue
            if self.store.has("units", unit.key):
                self.store.release(unit.key)
                self.tally.found += 1
                continue
            self.running += 1
            self._tell(str(unit))
            self.executor.submit(unit)

    def _take(self, unit: Unit, result: bytes | Exception) -> None:
        self.running -= 1
        if isinstance(result, bytes):
            self.store.write("units", unit.key, result)
            self.tally.computed += 1
        else:
            self.tries[unit.key] += 1
            # What the user gave will not be better the next time.
            if isinstance(result, RblError) or self.tries[unit.key] == _TRIES:
                self.tally.failed[unit] = str(result) or type(result).__name__
            else:
                self.waiting.append(unit)
        self.store.release(unit.key)

    def _tell(self, at_work: str) -> None:
        tally = self.tally
        done = tally.computed + tally.found + len(tally.failed)
        self.report(Stand(done, tally.found, self.total, at_work))
