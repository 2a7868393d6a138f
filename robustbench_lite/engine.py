"""Continuous batching: one attack over many samples, every slot of the batch always busy.

One call of `step` moves every slot once. A sample that is fooled, out of steps or out of queries
leaves at once; waiting samples take the free slots; when none waits, the batch shrinks. Restarts of
one sample may run side by side: what comes out is what it would be in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from robustbench_lite.attack import Attack, Finishing, State, Tracing
from robustbench_lite.classifier import Classifier
from robustbench_lite.ledger import Ledger, rows_of
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.rng import Rng
from robustbench_lite.running import Settings, halved
from robustbench_lite.threat import Threat

_REFILL = 8  # refill when an eighth of the batch is free: starting few samples at a time is slow

_LATE = 10  # steps before the end at which the gap is put on record


@dataclass(frozen=True)
class Work:
    """The samples to attack: x (N, C, H, W), y (N,), random keys (N,), query budgets (N,).

    `span` (N,) is what gaps are measured in, 1 if None (see `Ledger`). With a surrogate the search
    asks it, and the classifier only about the last proposal. With keys (R * N,) every sample is
    attacked R times, the first time with the first N of them; then what was asked must not count.
    """

    x: Tensor
    y: Tensor
    keys: Tensor
    budget: Tensor
    classes: int
    targeted: bool = False
    eot: int = 1
    surrogate: Classifier | None = None
    span: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Slots:
    """The batch: which row of the work each slot holds, where it stands, what it found."""

    row: Tensor
    keys: Tensor
    step: Tensor
    oracle: Oracle[Threat]
    state: State

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: Tensor, more: _Slots | None = None) -> _Slots:
        """Some of the slots (repeats allowed), and then those of `more`."""
        if more is None:
            return _Slots(
                self.row[index],
                self.keys[index],
                self.step[index],
                self.oracle.take(index),
                _map(self.state, lambda v: v[index]),
            )
        theirs = iter(_tensors(more.state))
        return _Slots(
            rows_of(self.row, index, more.row),
            rows_of(self.keys, index, more.keys),
            rows_of(self.step, index, more.step),
            self.oracle.take(index, more.oracle),
            _map(self.state, lambda v: rows_of(v, index, next(theirs))),
        )


def _tensors(state: State) -> list[Tensor]:
    return [getattr(state, f.name) for f in fields(state)]  # type: ignore[arg-type]  # a dataclass by contract


def _map(state: State, change: Callable[[Tensor], Tensor]) -> State:
    names = [f.name for f in fields(state)]  # type: ignore[arg-type]  # a dataclass by contract
    changed: dict[str, Any] = {name: change(getattr(state, name)) for name in names}
    return replace(state, **changed)  # type: ignore[type-var]  # a dataclass by contract


def attack_all(
    attack: Attack,
    classifier: Classifier,
    threat: Threat,
    work: Work,
    settings: Settings,
    report: Callable[[int, int], None],
) -> Ledger:
    """Run `attack` on every sample of `work`.

    Args:
        attack: what proposes.
        classifier: what is asked; already prepared and on the device.
        threat: what the attacker may do.
        work: the samples, at least one.
        settings: how to run.
        report: called with (rows of `work` done, samples of these fooled within the threat) as
            they leave.

    Where memory does not hold that many slots, it begins anew with half of them. A restart is given
    up as soon as an earlier one of its sample has found something; its row stays blank.

    Returns:
        The ledger of all rows on the CPU, in the order of the keys. Its examples are claims of the
        prepared classifier; `evaluate` asks the original about them.
    """
    while True:
        run = _Run(attack, classifier, threat, work, settings, report)
        try:
            return run.run()
        except RuntimeError as error:
            settings = halved(settings, error)
            report(-run.done, -run.fooled)


class _Run:
    def __init__(
        self,
        attack: Attack,
        classifier: Classifier,
        threat: Threat,
        work: Work,
        settings: Settings,
        report: Callable[[int, int], None],
    ) -> None:
        self.attack = attack
        self.classifier = classifier
        self.threat = threat
        self.work = work
        self.settings = settings
        self.report = report
        self.images = len(work.x)
        whole = torch.arange(len(work)) % self.images
        x = work.x if len(work) == self.images else work.x[whole]
        self.total = Ledger.blank(threat, x, work.budget[whole])
        self.first = torch.full((self.images,), len(work))  # the first row that found something
        self.next = 0
        self.done = self.fooled = 0
        self.closing: list[_Slots] = []

    def run(self) -> Ledger:
        slots: _Slots | None = None
        staying = torch.arange(0)
        while len(staying) or self.next < len(self.work):
            slots = self._step(self._refill(slots, staying))
            staying = self._leave(slots)
            waiting = sum(map(len, self.closing))
            if waiting and (not len(staying) or waiting * 4 >= self.settings.width):
                self._close()
        self._close()
        return self.total

    def _refill(self, slots: _Slots | None, staying: Tensor) -> _Slots:
        """Of the slots those that stay, and new ones where that is worth it."""
        width = self.settings.width
        free = width - len(staying)
        count = min(free, len(self.work) - self.next)
        old = slots if len(staying) else None
        if old is not None and (count == 0 or (count == free and free * _REFILL < width)):
            return old if len(staying) == len(old) else old.take(staying)
        row = torch.arange(self.next, self.next + count)
        self.next += count
        fresh = self._start(row)
        return fresh if old is None else old.take(staying, fresh)

    def _start(self, row: Tensor) -> _Slots:
        count = len(row)
        if self.settings.exact:
            row = row[torch.arange(self.settings.width).clamp(max=count - 1)]
        device, work = self.settings.device, self.work
        keys = work.keys[row].to(device)
        sample = row % self.images
        oracle: Oracle[Threat] = Oracle(
            self._passes(self.classifier),
            self.threat,
            work.x[sample].to(device),
            work.y[sample].to(device),
            work.classes,
            targeted=work.targeted,
            minimal=self.attack.minimal,
            budget=work.budget[sample],
            keys=keys,
            span=None if work.span is None else work.span[sample],
            surrogate=None if work.surrogate is None else self._passes(work.surrogate),
        )
        step = torch.zeros_like(keys)
        state = self.attack.start(oracle, oracle.x, oracle.y, Rng(keys, step))
        slots = _Slots(row.to(device), keys, step, oracle, state)
        return slots.take(torch.arange(count)) if len(row) > count else slots

    def _passes(self, classifier: Classifier) -> Passes:
        how = self.settings
        return Passes(classifier, how.width, how.exact, self.work.eot, how.precision)

    def _padded(self, slots: _Slots) -> _Slots:
        if not self.settings.exact or len(slots) == self.settings.width:
            return slots
        return slots.take(torch.arange(self.settings.width).clamp(max=len(slots) - 1))

    def _step(self, slots: _Slots) -> _Slots:
        count = len(slots)
        slots = self._padded(slots)
        oracle, step = slots.oracle, slots.step + 1
        rng = Rng(slots.keys, step)
        state = self.attack.step(oracle, oracle.x, oracle.y, rng, slots.state)
        book = oracle.ledger
        late = step == self.attack.steps - _LATE
        book.gap_before = torch.where(late, book.gap, book.gap_before)
        moved = _Slots(slots.row, slots.keys, step, oracle, state)
        return moved.take(torch.arange(count)) if len(moved) > count else moved

    def _leave(self, slots: _Slots) -> Tensor:
        """Which slots go on. What the others found is written; those not fooled get a last look."""
        book = slots.oracle.ledger
        fooled = book.found & (not self.attack.minimal)
        spent = book.budget < self.work.eot
        over = slots.step >= self.attack.steps
        if isinstance(slots.state, Finishing):
            over = over | slots.state.done
        early = self.settings.early_leave and self.work.eot == 1
        leaving = over | spent | (fooled & early)
        if not bool(leaving.any()):
            return torch.arange(len(slots))
        last_look = over & ~spent & ~fooled
        self._write((leaving & ~last_look).nonzero().flatten(), slots)
        if bool(last_look.any()):
            self.closing.append(slots.take(last_look.nonzero().flatten()))
        if len(self.work) > self.images:
            leaving = leaving | self._given_up(slots, ~leaving)
        return (~leaving).nonzero().flatten()

    def _given_up(self, slots: _Slots, others: Tensor) -> Tensor:
        """(N,) bool: which `others` follow a restart of their sample that found something."""
        first = self.first.to(slots.row.device)[slots.row % self.images]
        beaten = others & (slots.row > first)
        self.done += int(beaten.sum())
        self.report(int(beaten.sum()), 0)
        return beaten

    def _close(self) -> None:
        """The last proposal of an attack has not been asked about yet: ask, in full batches."""
        if not self.closing:
            return
        pile = self.closing[0]
        for more in self.closing[1:]:
            pile = pile.take(torch.arange(len(pile)), more)
        self.closing.clear()
        for first in range(0, len(pile), self.settings.width):
            part = torch.arange(first, min(first + self.settings.width, len(pile)))
            slots = self._padded(pile.take(part))
            slots.oracle.check(slots.state.adv)
            self._write(torch.arange(len(part)), slots)

    def _write(self, rows: Tensor, slots: _Slots) -> None:
        if not len(rows):
            return
        row = slots.row[rows].cpu()
        book = slots.oracle.ledger.take(rows)
        if isinstance(slots.state, Tracing):
            book.trace = slots.state.trace[rows]
        self.total.write(row, book)
        self.done += len(rows)
        sample = row % self.images
        fooled = self.total.found[row]
        if self.attack.minimal:  # the others are not noted unless they are within the threat
            fooled &= self.threat.contains(self.work.x[sample], self.total.adv[row])
        new = set(sample[fooled & (self.first[sample] == len(self.work))].tolist())
        self.first.scatter_reduce_(0, sample[fooled], row[fooled], "amin")
        self.fooled += len(new)
        self.report(len(rows), len(new))
