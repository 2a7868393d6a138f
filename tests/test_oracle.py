"""What an attack is told, what it is charged, and what is remembered of its questions."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robustbench_lite import Attack, Classifier, Dataset, Lp, Norm, Oracle, evaluate
from robustbench_lite.loss import Loss
from robustbench_lite.passes import Passes
from robustbench_lite.testing.models import Linear, Recorder, generator, signed_weights
from robustbench_lite.threat import Access

X = 0.3 + 0.4 * torch.rand(6, 1, 3, 3, generator=generator(0))
WEIGHT = signed_weights(4, 9, 1)
THREAT = Lp(Norm.LINF, 0.2)


def labels() -> Tensor:
    with torch.no_grad():
        return Linear(WEIGHT)(X).argmax(1)


def oracle(
    model: torch.nn.Module,
    threat: Lp = THREAT,
    *,
    budget: list[int] | None = None,
    eot: int = 1,
    **more: object,
) -> Oracle[Lp]:
    given = None if budget is None else torch.tensor(budget)
    passes = Passes(Classifier(model), width=4, eot=eot)
    return Oracle(passes, threat, X, labels(), 4, budget=given, **more)  # type: ignore[arg-type]


def points(n: int) -> Tensor:
    return (X[:, None] + 0.2 * (torch.rand(6, n, 1, 3, 3, generator=generator(2)) - 0.5)).clamp(
        0, 1
    )


def test_several_questions_at_once_are_answered_as_one_by_one() -> None:
    asked = points(5)
    together, apart = oracle(Linear(WEIGHT)), oracle(Linear(WEIGHT))
    logits = together.logits(asked)
    assert logits.shape == (6, 5, 4)
    for q in range(5):
        assert torch.allclose(logits[:, q], apart.logits(asked[:, q]), atol=1e-6)
    assert together.ledger.queries.tolist() == apart.ledger.queries.tolist() == [5] * 6
    assert torch.equal(together.labels(asked), logits.argmax(2))
    assert torch.equal(together.fools(asked), logits.argmax(2) != labels()[:, None])


@pytest.mark.parametrize("eot", [1, 2])
def test_of_examples_asked_about_at_once_an_average_keeps_the_deepest(eot: int) -> None:
    """A net that is sure of its answer keeps the first."""
    y = labels()
    way = (WEIGHT[(y + 1) % 4] - WEIGHT[y]).sign().reshape(X.shape)
    sizes = torch.tensor([0.19, 0.17, 0.199, 0.18, 0.15])
    view = oracle(Linear(WEIGHT), eot=eot)
    asked = (X[:, None] + sizes.reshape(1, 5, 1, 1, 1) * way[:, None]).clamp(0, 1)
    fooled = view.fools(asked)
    assert int(fooled.all(1).sum()) >= 3
    view.fools(X)
    want = 0.199 if eot > 1 else 0.19
    assert view.ledger.size[fooled.all(1)].tolist() == pytest.approx(
        [want] * int(fooled.all(1).sum()), abs=1e-5
    )


def test_no_call_is_wider_than_the_batch() -> None:
    widths = []

    class Wide(Linear):
        def forward(self, x: Tensor) -> Tensor:
            widths.append(len(x))
            return super().forward(x)

    oracle(Wide(WEIGHT)).logits(points(5))
    assert sum(widths) == 30
    assert max(widths) == 4


def test_a_budget_that_ends_among_several_questions_is_kept() -> None:
    model = Recorder(Linear(WEIGHT))
    view = oracle(model, Lp(Norm.LINF, 0.2, queries=9), budget=[0, 1, 2, 3, 4, 9])
    asked = points(3)
    logits = view.logits(asked)
    assert model.rows == 0 + 1 + 2 + 3 + 3 + 3
    assert view.budget.tolist() == [0, 0, 0, 0, 1, 6]
    answered = (logits != 0).any(2)
    assert answered.sum(1).tolist() == [0, 1, 2, 3, 3, 3]
    assert not view.fools(asked)[:4].any()


@pytest.mark.parametrize("minimal", [False, True])
def test_of_several_that_fool_the_first_or_the_smallest_is_kept(minimal: bool) -> None:
    view = oracle(Linear(WEIGHT), minimal=minimal)
    with torch.no_grad():
        other = WEIGHT[(labels() + 1) % 4] - WEIGHT[labels()]
    direction = other.sign().reshape(6, 1, 1, 3, 3)
    sizes = torch.tensor([0.01, 0.19, 0.15, 0.9, 0.18])
    asked = X[:, None] + sizes.reshape(1, 5, 1, 1, 1) * direction
    fooled = view.fools(asked)
    allowed = (sizes <= 0.2) if not minimal else torch.ones(5, dtype=torch.bool)
    for i in range(6):
        good = (fooled[i] & allowed).nonzero().flatten()
        assert bool(view.found[i]) == (len(good) > 0)
        if not len(good):
            continue
        chosen = asked[i, good].clamp(0, 1)
        reach = (chosen - X[i]).flatten(1).abs().amax(1)
        expected = chosen[int(reach.argmin())] if minimal else chosen[0]
        assert torch.equal(view.best[i], expected)
    assert fooled[:, 1].any()


def test_gradients_of_weighted_logits_are_exact_and_each_is_charged() -> None:
    view = oracle(Linear(WEIGHT, scale=3.0))
    weights = torch.randn(6, 2, 4, generator=generator(4))
    logits, gradients = view.gradients(X, lambda z: weights)
    with torch.no_grad():
        assert torch.allclose(logits, Linear(WEIGHT, scale=3.0)(X))
    expected = 3 * (weights @ WEIGHT).reshape(6, 2, 1, 3, 3)
    assert torch.allclose(gradients, expected, atol=1e-5)
    assert view.ledger.queries.tolist() == [1] * 6
    assert view.ledger.backwards.tolist() == [2] * 6


def test_an_objective_of_ones_own_sees_every_slot_also_beside_spent_ones() -> None:
    y = labels()
    target = (y + torch.tensor([1, 2, 3, 1, 2, 3])) % 4

    def toward(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
        rows = torch.arange(len(logits))
        return logits[rows, target] - logits[rows, y]

    view = oracle(Linear(WEIGHT), Lp(Norm.LINF, 0.2, queries=1), budget=[1, 0, 1, 1, 0, 1])
    _, gradient = view.value_and_gradient(X, y, toward)
    expected = (WEIGHT[target] - WEIGHT[y]).reshape(X.shape)
    live = torch.tensor([0, 2, 3, 5])
    assert torch.allclose(gradient[live], expected[live], atol=1e-6)
    assert not gradient[[1, 4]].any()
    assert view.ledger.backwards.tolist() == [1, 0, 1, 1, 0, 1]
    _, nothing = view.value_and_gradient(X, y, Loss.MARGIN)
    assert not nothing.any()


@dataclass(frozen=True)
class Course:
    adv: Tensor
    trace: Tensor
    turn: Tensor


@dataclass(frozen=True)
class Telling(Attack):
    """Tells 10, 20, 30 ... and walks until it is fooled."""

    needs = Access.DECISIONS
    steps: int = 4

    def supports(self, threat: object) -> bool:
        return True

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: object) -> Course:
        return Course(x, x.new_full((len(x), self.steps), torch.nan), torch.zeros_like(y))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: object, state: Course) -> Course:
        rows = torch.arange(len(x))
        trace = state.trace.clone()
        trace[rows, state.turn] = 10.0 * (state.turn + 1)
        oracle.labels(state.adv)
        direction = (WEIGHT[(y + 1) % 4] - WEIGHT[y]).sign().reshape(x.shape)
        return Course(state.adv + 0.05 * direction, trace, state.turn + 1)


def test_the_course_that_an_attack_tells_is_put_on_record() -> None:
    data = Dataset(X, labels())
    outcome = evaluate(Linear(WEIGHT), Telling(), THREAT, data, batch_size=4)
    for record in outcome.records:
        asked = min(record.queries, 4)
        assert record.trace == tuple(10.0 * (k + 1) for k in range(asked))
    assert len({len(r.trace) for r in outcome.records}) > 1
    entry = outcome.to_json()["samples"][0]
    assert entry["trace"] == outcome.records[0].trace
