"""Attacks of other libraries: what counts, what it costs, what they may see and touch."""

import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from rbl_attacks.peers.isolated import isolated
from stub_library import (
    LINEAR,
    PROBLEM,
    THREAT,
    Stub,
    build,
    judged,
)
from torch import Tensor, nn

from robustbench_lite import Dataset, InputError, Lp, evaluate
from robustbench_lite.attack import Walk
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.goal import Targeted
from robustbench_lite.lending import Lent, lend
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.rng import Rng
from robustbench_lite.testing.models import Linear, Problem, Recorder
from robustbench_lite.threat import Access

pytestmark = pytest.mark.usefixtures("stub_library")


# ---- what counts -----------------------------------------------------------------------------


def test_only_what_it_returns_counts() -> None:
    open_ = judged(Stub(name="ascend"), PROBLEM, THREAT)
    secret = judged(Stub(name="secretive"), PROBLEM, THREAT)
    assert open_.robust_accuracy < 0.5
    assert secret.robust_accuracy == 1.0


def test_an_image_outside_eps_is_no_success() -> None:
    far = judged(Stub(name="ascend"), PROBLEM, replace(THREAT, eps=0.2))
    assert far.robust_accuracy == 0.0
    weight = torch.ones(2, 4)
    weight[1] = -1
    model, x = Linear(weight), torch.full((1, 1, 2, 2), 0.51)
    data = Dataset(x, torch.tensor([0]))
    inside = Stub(name="shift", settings=(("amount", -0.99),))
    outside = Stub(name="shift", settings=(("amount", -1.01),))
    assert evaluate(model, inside, THREAT, data).robust_accuracy == 0.0
    assert evaluate(model, outside, THREAT, data).robust_accuracy == 1.0


def test_nan_images_have_no_verdict() -> None:
    outcome = judged(Stub(name="nan"), PROBLEM, THREAT)
    assert all(r.error and not r.robust for r in outcome.records)
    assert torch.equal(outcome.adversarials, PROBLEM.data.x)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fail", "RuntimeError: no luck"),
        ("misshapen", r"images of shape \(12, 1, 1, 6\)"),
        ("nothing", "NoneType"),
    ],
)
def test_a_failure_inside_a_library_names_it(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"stub:{name}\(\) failed inside stub.*{complaint}"):
        judged(Stub(name=name), PROBLEM, THREAT)


def test_targeted_goals_reach_the_library() -> None:
    weight = torch.eye(3).repeat_interleave(2, 1)
    x = torch.full((4, 1, 2, 3), 0.5) + 0.001 * torch.arange(3).repeat_interleave(2).reshape(2, 3)
    problem = Problem(Linear(weight), Dataset(x, torch.full((4,), 2)))
    outcome = judged(Stub(name="ascend"), problem, THREAT, goal=Targeted(0))
    assert outcome.robust_accuracy == 0.0
    with torch.no_grad():
        assert problem.model(outcome.adversarials).argmax(1).tolist() == [0] * 4


# ---- what it costs ---------------------------------------------------------------------------


def oracle_of(model: nn.Module, slots: int, threat: Lp = THREAT, eot: int = 1) -> Oracle[Lp]:
    x = torch.full((slots, 1, 2, 2), 0.5)
    y = torch.zeros(slots, dtype=torch.long)
    return Oracle(Passes(Classifier(model), eot=eot), threat, x, y, classes=2)


def test_rows_are_charged_in_equal_parts_rounded_up() -> None:
    oracle = oracle_of(LINEAR, 3)
    with lend(oracle) as module:
        x = torch.rand(7, 1, 2, 2, requires_grad=True)
        logits = module(x)
        logits.sum().backward(retain_graph=True)
        logits[:2].sum().backward()
        with torch.no_grad():
            module(x[:3])
        assert module(x[:0]).shape == (0, 2)
    assert oracle.ledger.queries.tolist() == [4, 4, 4]  # 7 + 3 of 3 slots
    assert oracle.ledger.backwards.tolist() == [5, 5, 5]  # 7 + 7 of 3 slots


def test_averaged_passes_cost_as_many() -> None:
    oracle = oracle_of(LINEAR, 2, eot=5)
    with lend(oracle) as module:
        module(torch.rand(2, 1, 2, 2, requires_grad=True)).sum().backward()
    assert oracle.ledger.queries.tolist() == [5, 5]
    assert oracle.ledger.backwards.tolist() == [5, 5]


def test_the_queries_told_are_those_that_the_model_saw() -> None:
    attack = build("torchattacks:PGD", steps=7)
    idle = Recorder(PROBLEM.model)
    wrong = replace(PROBLEM.data, y=(PROBLEM.data.y + 1) % 5)
    evaluate(idle, attack, THREAT, wrong)  # what the judge asks on its own account
    recorder = Recorder(PROBLEM.model)
    outcome = evaluate(recorder, attack, THREAT, PROBLEM.data)
    checked = sum(r.size is not None for r in outcome.records)
    assert sum(r.queries for r in outcome.records) == recorder.rows - idle.rows - checked
    assert {(r.queries, r.backwards) for r in outcome.records} == {(8, 7)}


def test_a_cap_on_queries_is_refused() -> None:
    capped = replace(THREAT, queries=100)
    assert Stub(name="shift").supports(THREAT)
    assert not Stub(name="shift").supports(capped)
    with pytest.raises(UnsupportedError, match="cap"), lend(oracle_of(LINEAR, 2, capped)):
        pass


# ---- what it may see and touch ---------------------------------------------------------------


def test_no_more_is_given_than_the_access_allows() -> None:
    x = torch.rand(5, 1, 2, 2, requires_grad=True)
    given = {}
    for access in Access:
        with lend(oracle_of(LINEAR, 2, replace(THREAT, access=access))) as module:
            given[access] = module(x)
    assert given[Access.GRADIENTS].requires_grad
    assert not given[Access.SCORES].requires_grad
    assert torch.equal(given[Access.SCORES], given[Access.GRADIENTS])
    assert torch.equal(given[Access.DECISIONS].sort(1).values, torch.tensor([[0.0, 1.0]] * 5))
    assert torch.equal(given[Access.DECISIONS].argmax(1), given[Access.SCORES].argmax(1))


def test_nan_logits_are_put_down_to_the_slot_or_to_all() -> None:
    class Sore(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1)[:, :2]
            return torch.where(first > 0.9, torch.nan, first)

    rows = torch.full((3, 1, 2, 2), 0.5)
    rows[1] = 0.95
    for asked, marked in (
        (rows, [False, True, False]),
        (rows[:2], [True] * 3),
        (rows + 1.0, [False] * 3),  # outside the box is the asker's own fault
    ):
        oracle = oracle_of(Sore(), 3)
        with lend(oracle) as module:
            module(asked)
        assert oracle.ledger.invalid.tolist() == marked


def test_nothing_in_the_process_or_the_model_changes(capsys) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 5))
    x = PROBLEM.data.x
    data = Dataset(x, model.eval()(x).argmax(1))
    model.train()
    model[2].bias.requires_grad_(False)
    handlers = list(logging.getLogger().handlers)
    before = surroundings()
    evaluate(model, Stub(name="vandal"), THREAT, data)
    after = surroundings()
    assert before == after
    assert logging.getLogger().handlers == handlers
    assert [m.training for m in model.modules()] == [True] * 4
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    assert [p.grad for p in model.parameters()] == [None, None]
    judged(Stub(name="shift", settings=(("loudly", True),)), PROBLEM, THREAT)
    assert capsys.readouterr() == ("", "")


def surroundings() -> list[object]:
    return [
        torch.get_rng_state().tolist(),
        str(np.random.get_state(legacy=False)),
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_generators_are_seeded_inside_and_put_back_afterwards() -> None:
    before = surroundings()
    drawn = []
    for seed in (5, 5, 6):
        with isolated(seed, torch.device("cpu")):
            drawn.append([float(torch.rand(1)), np.random.rand(), random.random()])
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert surroundings() == before


def test_images_and_labels_are_lent_as_copies() -> None:
    oracle = oracle_of(LINEAR, 3)
    x, y = oracle.x.clone(), oracle.y.fill_(1).clone()
    rng = Rng(torch.arange(3))
    Stub(name="vandal").step(oracle, oracle.x, oracle.y, rng, Walk(oracle.x))
    assert torch.equal(oracle.x, x)
    assert torch.equal(oracle.y, y)


def test_the_module_that_is_lent_hides_the_model() -> None:
    module = Lent(Passes(Classifier(LINEAR)), Access.GRADIENTS, 2, torch.zeros(1).long())
    assert [len(p) for p in module.parameters()] == [1]
    assert list(module.children()) == []


def test_random_numbers_are_a_function_of_seed_and_samples() -> None:
    attack = Stub(name="noise")
    wide = replace(THREAT, eps=0.3)
    runs = []
    for noise, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        runs.append(judged(attack, PROBLEM, wide, seed=seed).adversarials)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], PROBLEM.data.x)
