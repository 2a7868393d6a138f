"""A real model: what happens to a sample does not depend on batch size, order or shards."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from robustbench_lite import Classifier, Dataset, Lp, Norm, evaluate, load_attack, load_data
from robustbench_lite import load_model as load
from robustbench_lite.attack import Attack
from robustbench_lite.results import Outcome, Record

N = 96
Found = Mapping[str, tuple[Record, Tensor]]
CASES = {
    "pgd-linf": (load_attack("pgd", steps=20), Lp(Norm.LINF, 0.2)),
    "pgd-l2": (load_attack("pgd", steps=20), Lp(Norm.L2, 1.0)),
    "cw": (load_attack("cw", steps=60, searches=3, learning_rate=0.05), Lp(Norm.L2, 1.0)),
}
# How the samples are presented: batch size, order, shards.
ARRANGEMENTS = {
    "batches of 7": (7, torch.arange(N), 1),
    "batches of 64": (64, torch.arange(N), 1),
    "batches of 256": (256, torch.arange(N), 1),
    "reversed": (64, torch.arange(N).flip(0), 1),
    "shuffled": (64, torch.randperm(N, generator=torch.Generator().manual_seed(3)), 1),
    "3 shards": (64, torch.arange(N), 3),
    "3 shards, shuffled, batches of 7": (
        7,
        torch.randperm(N, generator=torch.Generator().manual_seed(4)),
        3,
    ),
}


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load("digits-cnn-at")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits").sample(N)


def run(model: Classifier, data: Dataset, case: str, arrangement: str, *, exact: bool) -> Found:
    attack: Attack
    attack, threat = CASES[case]
    batch_size, order, shards = ARRANGEMENTS[arrangement]
    outcomes: list[Outcome] = [
        evaluate(
            model, attack, threat, data.take(order[k::shards]), batch_size=batch_size, exact=exact
        )
        for k in range(shards)
    ]
    return {
        r.id: (r, adv) for o in outcomes for r, adv in zip(o.records, o.adversarials, strict=True)
    }


@pytest.fixture(scope="module")
def reference(model: Classifier, data: Dataset) -> Mapping[tuple[str, bool], Found]:
    return {
        (case, exact): run(model, data, case, "batches of 64", exact=exact)
        for case in CASES
        for exact in (False, True)
    }


def on_the_border(model: Classifier, images: Tensor, label: int) -> bool:
    """Is an adversarial image so near to the border that rounding decides?"""
    with torch.no_grad():
        logits = model(images)
    others = logits.clone()
    others[:, label] = -torch.inf
    gap = (others.amax(1) - logits[:, label]).abs()
    return bool((gap <= 1e-4 * (logits.amax(1) - logits.amin(1))).any())


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("case", CASES)
def test_outcomes_are_equal_but_for_rounding(
    model: Classifier,
    data: Dataset,
    reference: Mapping[tuple[str, bool], Found],
    case: str,
    arrangement: str,
) -> None:
    first = reference[case, False]
    found = run(model, data, case, arrangement, exact=False)
    assert found.keys() == first.keys()
    tolerance = 2e-2 if CASES[case][0].minimal else 1e-4
    for key, (record, adv) in found.items():
        old, old_adv = first[key]
        same = (record.correct, record.robust, record.queries, record.backwards, record.error) == (
            old.correct,
            old.robust,
            old.queries,
            old.backwards,
            old.error,
        )
        sizes = record.size, old.size
        if same and None not in sizes:
            same = record.size == pytest.approx(old.size, rel=tolerance)
        elif same:
            same = sizes == (None, None)
        assert same or on_the_border(model, torch.stack([adv, old_adv]), old.label), (record, old)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("case", CASES)
def test_exact_outcomes_are_equal_bit_by_bit(
    model: Classifier,
    data: Dataset,
    reference: Mapping[tuple[str, bool], Found],
    case: str,
    arrangement: str,
) -> None:
    first = reference[case, True]
    found = run(model, data, case, arrangement, exact=True)
    assert found.keys() == first.keys()
    for key, (record, adv) in found.items():
        assert record == first[key][0]
        assert torch.equal(adv, first[key][1])


@pytest.mark.parametrize("case", CASES)
def test_both_modes_agree_and_have_something_to_agree_on(
    reference: Mapping[tuple[str, bool], Found], case: str
) -> None:
    fast, exact = ([r.robust for r, _ in reference[case, mode].values()] for mode in (False, True))
    assert sum(a != b for a, b in zip(fast, exact, strict=True)) <= 1
    assert 5 <= sum(fast) <= N - 5


def test_another_seed_gives_other_examples(model: Classifier, data: Dataset) -> None:
    attack, threat = CASES["pgd-linf"]
    one, two = (evaluate(model, attack, threat, data, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.adversarials, two.adversarials)
    assert [r.id for r in one.records] == [r.id for r in two.records]
