"""Continuous batching, seen from the model: who is asked, how often, and in how full a batch."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Attack,
    Cascade,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Oracle,
    Outcome,
    Restarts,
    Rng,
    Walk,
    evaluate,
    worst_case,
)
from robustbench_lite.engine import Work, attack_all
from robustbench_lite.ledger import Ledger
from robustbench_lite.running import Settings

PIXEL = 1 / 64
THREAT = Lp(Norm.LINF, 0.5, Access.DECISIONS)


@dataclass(frozen=True)
class Climb(Attack):
    """Raises the first pixel by some notches a step; asks `asks` times about every place."""

    needs = Access.DECISIONS

    steps: int = 8
    asks: int = 1
    notches: int = 1

    def supports(self, threat: Any) -> bool:
        return True

    def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        return Walk(x)

    def step(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        for _ in range(self.asks):
            oracle.labels(state.adv)
        adv = state.adv.clone()
        adv[:, 0, 0, 0] += self.notches * PIXEL
        return Walk(adv)


@dataclass(frozen=True)
class Smaller(Climb):
    """The same, but it goes on after a success."""

    minimal = True


class Gate(nn.Module):
    """Class 1 once the first pixel reaches the third; the second says which sample it is.

    Logs the samples of every call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((x[:, 0, 0, 1] * 1024).round().int().tolist())
        opened = (x[:, 0, 0, 0] >= x[:, 0, 0, 2]).float()
        return torch.stack([1 - opened, opened], 1)

    @property
    def asked(self) -> Counter[int]:
        return Counter(i for call in self.calls for i in call)


def gates(heights: list[int]) -> Dataset:
    """Sample i falls when its first pixel has been raised `heights[i]` times."""
    x = torch.zeros(len(heights), 1, 1, 3)
    x[:, 0, 0, 1] = torch.arange(len(heights)) / 1024
    x[:, 0, 0, 2] = torch.tensor(heights) * PIXEL
    return Dataset(x, torch.zeros(len(heights), dtype=torch.long))


def run(
    attack: Attack, data: Dataset, settings: Settings, threat: Lp = THREAT
) -> tuple[Ledger, Gate, list[tuple[int, int]]]:
    gate = Gate()
    n = len(data)
    budget = torch.full((n,), threat.queries or 2**62)
    work = Work(data.x, data.y, torch.arange(n), budget, classes=2)
    reports: list[tuple[int, int]] = []
    classifier = Classifier(gate, access=Access.DECISIONS)
    ledger = attack_all(
        attack, classifier, threat, work, settings, lambda done, hit: reports.append((done, hit))
    )
    return ledger, gate, reports


def heights(n: int, highest: int, seed: int = 0) -> list[int]:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(1, highest + 1, (n,), generator=stream).tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 16, 300])
def test_a_fooled_sample_is_not_asked_again(batch_size: int) -> None:
    high = heights(200, 12)
    ledger, gate, _ = run(Climb(8), gates(high), Settings(batch_size))
    expected = {i: min(h, 8) + 1 for i, h in enumerate(high)}
    assert gate.asked == Counter(expected)
    assert ledger.queries.tolist() == list(expected.values())
    assert ledger.found.tolist() == [h <= 8 for h in high]
    assert ledger.backwards.sum() == 0


def test_without_early_leave_a_fooled_sample_keeps_its_slot() -> None:
    high = [1, 3, 8, 20]
    ledger, gate, _ = run(Climb(8), gates(high), Settings(4, early_leave=False))
    assert gate.asked == Counter({0: 8, 1: 8, 2: 9, 3: 9})
    assert ledger.found.tolist() == [True, True, True, False]
    assert ledger.size.tolist() == [PIXEL, 3 * PIXEL, 8 * PIXEL, float("inf")]


def test_a_shrinking_attack_uses_all_of_its_steps() -> None:
    ledger, gate, _ = run(Smaller(8), gates([1, 3, 20]), Settings(4))
    assert gate.asked == Counter({0: 9, 1: 9, 2: 9})
    assert ledger.size.tolist() == [PIXEL, 3 * PIXEL, float("inf")]


def test_refills_keep_the_batch_full() -> None:
    high = heights(400, 9, seed=1)
    width = 16
    _, gate, _ = run(Climb(10), gates(high), Settings(width))
    last_arrival = next(k for k, call in enumerate(gate.calls) if 399 in call)
    while_waiting = [len(call) for call in gate.calls[:last_arrival]]
    assert min(while_waiting) > width - width / 8
    assert max(map(len, gate.calls)) <= width
    asked = sum(map(len, gate.calls))
    assert len(gate.calls) <= asked / width * 1.07 + 10


def test_slots_are_at_different_steps_of_the_attack() -> None:
    _, gate, _ = run(Climb(6), gates([1, 20, 20, 20, 20]), Settings(4))
    with_newcomer = [call for call in gate.calls if 4 in call and 1 in call]
    assert with_newcomer, "the fifth sample waited for the whole batch to finish"


def test_every_sample_gets_its_own_answer() -> None:
    high = heights(150, 12, seed=2)
    data = gates(high)
    ledger, _, reports = run(Climb(8), data, Settings(13))
    assert torch.equal(ledger.adv[:, :, :, 1:], data.x[:, :, :, 1:])
    raised = (ledger.adv[:, 0, 0, 0] / PIXEL).round().int().tolist()
    assert raised == [h if h <= 8 else 0 for h in high]
    assert sum(done for done, _ in reports) == 150
    assert sum(hit for _, hit in reports) == sum(h <= 8 for h in high)


def test_the_last_proposal_is_asked_about() -> None:
    ledger, _, _ = run(Climb(8), gates([8, 9]), Settings(4))
    assert ledger.found.tolist() == [True, False]


@pytest.mark.parametrize("asks", [1, 3])
@pytest.mark.parametrize("cap", [1, 2, 4, 5, 1000])
@pytest.mark.parametrize("kind", [Climb, Smaller])
def test_queries_told_are_queries_asked_and_never_above_the_cap(
    kind: type[Climb], cap: int, asks: int
) -> None:
    high = [1, 2, 3, 5, 20, 2, 20]
    threat = Lp(Norm.LINF, 0.5, Access.DECISIONS, queries=cap)
    ledger, gate, _ = run(kind(6, asks), gates(high), Settings(3), threat)
    asked = [gate.asked[i] for i in range(len(high))]
    assert ledger.queries.tolist() == asked
    assert max(asked) <= cap
    assert (ledger.budget + ledger.queries).tolist() == [cap] * len(high)


@pytest.mark.parametrize("asks", [1, 3])
def test_queries_told_are_queries_asked_without_a_cap(asks: int) -> None:
    high = [1, 2, 3, 5, 20]
    ledger, gate, _ = run(Climb(6, asks), gates(high), Settings(3))
    assert ledger.queries.tolist() == [gate.asked[i] for i in range(len(high))]


def judged(attack: Any, high: list[int], threat: Lp = THREAT) -> tuple[Outcome, Counter[int]]:
    """The outcome, and how often each sample was asked on behalf of the attack."""
    gate = Gate()
    outcome = evaluate(Classifier(gate, access=Access.DECISIONS), attack, threat, gates(high))
    asked = gate.asked
    # Once for the clean pass, once to see whether it is random, once to verify a claim.
    mine = {i: asked[i] - 2 - (r.size is not None) for i, r in enumerate(outcome.records)}
    return outcome, Counter(mine)


def test_a_cascade_sends_only_survivors_on() -> None:
    high = [1, 3, 4, 5, 9, 10, 20]
    outcome, asked = judged(Cascade(Climb(3), Climb(9)), high)
    first = [min(h, 3) + 1 for h in high]
    second = [0 if h <= 3 else min(h, 9) + 1 for h in high]
    expected = [a + b for a, b in zip(first, second, strict=True)]
    assert [asked[i] for i in range(len(high))] == expected
    assert [r.queries for r in outcome.records] == expected
    assert [r.robust for r in outcome.records] == [h > 9 for h in high]
    by = [str(Climb(3)) if h <= 3 else str(Climb(9)) for h in high[:5]]
    assert [r.attack for r in outcome.records] == [*by, "", ""]


def test_restarts_send_only_survivors_on() -> None:
    outcome, asked = judged(Restarts(Climb(4), 3), [2, 4, 5, 20])
    assert [asked[i] for i in range(4)] == [3, 5, 15, 15]
    assert [r.queries for r in outcome.records] == [3, 5, 15, 15]
    assert [r.robust for r in outcome.records] == [False, False, True, True]


def test_stages_share_one_query_budget() -> None:
    threat = Lp(Norm.LINF, 0.5, Access.DECISIONS, queries=8)
    outcome, asked = judged(Restarts(Climb(4), 3), [2, 20], threat)
    assert [asked[i] for i in range(2)] == [3, 8]
    assert [r.queries for r in outcome.records] == [3, 8]


def test_restarts_draw_other_random_numbers() -> None:
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Throw(Climb):
        def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> Walk:
            seen.append(rng.uniform(4))
            return Walk(x)

    judged(Restarts(Throw(1), 4), [20, 20])
    flat = torch.cat(seen).flatten()
    assert len(flat) == len(flat.unique()) == 4 * 2 * 4


def test_the_worst_case_is_taken_sample_by_sample() -> None:
    high = [2, 3, 20, 3, 2]
    data = gates(high)
    y = torch.tensor([0, 0, 0, 0, 1])  # the last one is wrong from the start
    data = Dataset(data.x, y)
    model = Classifier(Gate(), access=Access.DECISIONS)
    short = evaluate(model, Climb(2), THREAT, data)
    long = evaluate(model, Climb(3), THREAT, data)
    other = evaluate(model, Smaller(2, notches=2), THREAT, data)
    assert [r.size for r in other.records] == [2 * PIXEL, 4 * PIXEL, None, 4 * PIXEL, None]
    for order in ([short, long, other], [other, long, short]):
        worst = worst_case(order)
        assert [r.robust for r in worst.records] == [False, False, True, False, False]
        assert [r.correct for r in worst.records] == [True, True, True, True, False]
        assert [r.size for r in worst.records] == [2 * PIXEL, 3 * PIXEL, None, 3 * PIXEL, None]
        sums = [sum(o.records[i].queries for o in order) for i in range(5)]
        assert [r.queries for r in worst.records] == sums
        assert worst.robust_accuracy == 0.2
        assert worst.robust_accuracy <= min(o.robust_accuracy for o in order)
        assert torch.equal(worst.adversarials[1], long.adversarials[1])
        assert torch.equal(worst.adversarials[2], data.x[2])
