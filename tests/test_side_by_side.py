"""Restarts that run side by side come to what they come to in turn, in fewer calls of the model."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import robustbench_lite.judge as judge
from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Oracle,
    Restarts,
    Walk,
    evaluate,
)
from robustbench_lite.engine import Work, attack_all
from robustbench_lite.results import Outcome
from robustbench_lite.rng import Rng
from robustbench_lite.running import Settings

NOTCH = 2.0**-8
THREAT = Lp(Norm.LINF, 0.5)


class Gate(nn.Module):
    """Class 1 once the first pixel reaches `bar`; the width of every call is put on record."""

    def __init__(self, bar: float) -> None:
        super().__init__()
        self.bar = bar
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        opened = (x[:, 0, 0, 0] >= self.bar).float()
        return torch.stack([1 - opened, opened], 1)


@dataclass(frozen=True)
class Burning:
    adv: Tensor
    left: Tensor


@dataclass(frozen=True)
class Leap(Attack):
    """Every step raises the first pixel to a height drawn anew, of 0 to 127 notches."""

    needs = Access.DECISIONS

    def supports(self, threat: object) -> bool:
        return True

    def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        return Walk(x)

    def step(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        oracle.labels(state.adv)
        adv = x.clone()
        adv[:, 0, 0, 0] = rng.integers(128) * NOTCH
        return Walk(adv)


def samples(n: int) -> Dataset:
    x = torch.zeros(n, 1, 1, 2)
    x[:, 0, 0, 1] = torch.arange(n) / 1024
    return Dataset(x, torch.zeros(n, dtype=torch.long))


def leapt(n: int, bar: int, plan: Any, seed: int, **how: Any) -> tuple[Outcome, list[int]]:
    gate = Gate(bar * NOTCH)
    model = Classifier(gate, access=Access.DECISIONS)
    outcome = evaluate(model, plan, how.pop("threat", THREAT), samples(n), seed=seed, **how)
    return outcome, gate.calls


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 9), steps=st.integers(1, 12), restarts=st.integers(2, 7), seed=st.integers(0)
)
def test_all_that_is_recorded_is_as_in_turn(n: int, steps: int, restarts: int, seed: int) -> None:
    plan = Restarts(Leap(steps), restarts)
    bar = 128 - 256 // (steps * restarts)  # about one run in two finds something in all
    together, _ = leapt(n, bar, plan, seed, batch_size=256)
    in_turn, _ = leapt(n, bar, plan, seed, batch_size=4)
    exactly, _ = leapt(n, bar, plan, seed, exact=True)
    assert together.records == in_turn.records == exactly.records
    assert torch.equal(together.adversarials, in_turn.adversarials)
    assert torch.equal(together.adversarials, exactly.adversarials)


def test_what_is_found_is_what_the_first_successful_restart_finds() -> None:
    plan = Restarts(Leap(9), 12)
    outcome, _ = leapt(12, 125, plan, 3, batch_size=256)
    sizes = [r.size for r in outcome.records]
    alone, _ = leapt(12, 125, plan, 3, batch_size=256, early_leave=False)  # all in turn
    assert [r.robust for r in outcome.records] == [r.robust for r in alone.records]
    assert 4 <= sum(size is not None for size in sizes) <= 11
    later = [r.queries > 20 for r in outcome.records if not r.robust]
    assert any(later), "no sample fell to the third restart or a later one"


def test_the_first_restart_runs_alone_and_the_others_in_one_batch() -> None:
    _, calls = leapt(3, 200, Restarts(Leap(8), 6), 0, batch_size=256)  # none can reach the bar
    searching = calls[-18:]  # 8 steps and a last look, twice
    assert searching == [3] * 9 + [15] * 9


def test_as_many_run_at_once_as_an_eighth_of_the_batch_holds() -> None:
    _, calls = leapt(3, 200, Restarts(Leap(8), 6), 0, batch_size=64)  # 8 slots: two restarts
    assert calls[-36:] == [3] * 9 + [6] * 9 + [6] * 9 + [3] * 9


@pytest.mark.parametrize(
    "how",
    [{"early_leave": False}, {"threat": replace(THREAT, access=Access.DECISIONS, queries=1000)}],
    ids=["no early leave", "counted queries"],
)
def test_restarts_stay_in_turn_where_it_would_show(how: dict[str, Any]) -> None:
    _, calls = leapt(3, 200, Restarts(Leap(8), 6), 0, batch_size=256, **how)
    assert calls[-54:] == [3] * 54


@dataclass(frozen=True)
class Fuse(Leap):
    """Stays where it is until a step that its random numbers name, 0 to 31, and is then over."""

    def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> Burning:
        when = rng.integers(32)
        return Burning(x, when)

    def step(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng, state: Burning) -> Burning:
        oracle.labels(state.adv)
        left = state.left - 1
        adv = x.clone()
        adv[:, 0, 0, 0] = (left <= 0) * 127 * NOTCH
        return Burning(adv, left)


def test_a_later_restart_ends_with_the_success_of_an_earlier_one() -> None:
    moments = Rng(torch.arange(1000)).integers(32).tolist()
    keys = torch.tensor([moments.index(when) for when in (20, 9, 5, 12)])
    data = samples(1)
    work = Work(data.x, data.y, keys, torch.full((1,), 2**62), classes=2)
    told: list[tuple[int, int]] = []
    gate = Gate(127 * NOTCH)
    ledger = attack_all(
        Fuse(39),
        Classifier(gate, access=Access.DECISIONS),
        THREAT,
        work,
        Settings(256),
        lambda done, fooled: told.append((done, fooled)),
    )
    # A proposal is asked about one step later. The last row is given up with the third's success.
    assert ledger.queries.tolist() == [21, 10, 6, 0]
    assert ledger.found.tolist() == [True, True, True, False]
    assert gate.calls == [4] * 6 + [2] * 4 + [1] * 11
    assert [sum(column) for column in zip(*told, strict=True)] == [4, 1]


def test_a_claim_that_does_not_hold_brings_back_what_was_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy with a lower bar claims what the original denies; a later restart clears both."""
    plan, bar = Restarts(Leap(9), 12), 120
    expected, _ = leapt(12, bar, plan, 5, batch_size=256)
    asked = [Classifier(Gate(b * NOTCH), access=Access.DECISIONS) for b in (bar - 20, bar)]
    monkeypatch.setattr(judge, "prepare", lambda classifier, example, compiled: asked[0])
    together = evaluate(asked[1], plan, THREAT, samples(12), seed=5, batch_size=256)
    in_turn = evaluate(asked[1], plan, THREAT, samples(12), seed=5, batch_size=4)
    assert together.records == in_turn.records
    assert together.evidence.disagreed == in_turn.evidence.disagreed > 0
    assert together.evidence.disagreed > sum(not r.robust for r in together.records)
    assert sum(r.robust for r in together.records) <= sum(r.robust for r in expected.records)
