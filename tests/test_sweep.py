"""The curve of robust accuracy over eps, and that its points share their work."""

import json
from itertools import pairwise

import pytest
import torch
from rbl_attacks import CW, FGSM, PGD

from robustbench_lite import Cascade, InputError, Lp, Norm, evaluate
from robustbench_lite.sweep import sweep
from robustbench_lite.testing.models import Recorder, linear_problem

EPS = (0.0, 0.01, 0.02, 0.04)
UNIT = Lp(Norm.LINF, 0.02)
DISTANCES = (0.2, 0.4, 0.7, 1.2, 1.6, 2.5, 3.0)  # in units of 0.02


def linf(*eps: float) -> list[Lp]:
    return [Lp(Norm.LINF, each) for each in eps]


def test_the_curve_on_a_linear_model_is_the_exact_one() -> None:
    problem = linear_problem(UNIT, DISTANCES)
    curve = sweep(problem.model, PGD(steps=20), linf(*EPS), problem.data)
    expected = [sum(0.02 * d > eps for d in DISTANCES) / len(DISTANCES) for eps in EPS]
    assert [o.robust_accuracy for o in curve] == expected
    assert [o.threat for o in curve] == linf(*EPS)


def test_eps_are_put_in_order() -> None:
    problem = linear_problem(UNIT, DISTANCES)
    ordered = sweep(problem.model, FGSM(), linf(0.01, 0.04), problem.data)
    turned = sweep(problem.model, FGSM(), linf(0.04, 0.01), problem.data)
    assert [o.records for o in ordered] == [o.records for o in turned]


def test_what_is_broken_at_a_smaller_eps_is_not_attacked_again() -> None:
    problem = linear_problem(UNIT, DISTANCES)
    first, second = sweep(problem.model, PGD(steps=20), linf(0.01, 0.04), problem.data)
    for before, after in zip(first.records, second.records, strict=True):
        if not before.robust:
            assert after == before
        else:
            assert after.queries > before.queries
    alone = evaluate(problem.model, PGD(steps=20), Lp(Norm.LINF, 0.04), problem.data)
    assert [r.robust for r in alone.records] == [r.robust for r in second.records]


@pytest.mark.parametrize("plan", [PGD(steps=5), Cascade(FGSM(), PGD(steps=5))])
def test_a_broken_sample_stays_broken_with_its_image(plan) -> None:
    problem = linear_problem(UNIT, DISTANCES)
    curve = sweep(problem.model, plan, linf(*EPS), problem.data)
    for before, after in pairwise(curve):
        for i, record in enumerate(before.records):
            if not record.robust:
                assert not after.records[i].robust
                assert torch.equal(before.adversarials[i], after.adversarials[i])


def test_an_attack_that_shrinks_the_perturbation_runs_once() -> None:
    threats = [Lp(Norm.L2, eps) for eps in (0.05, 0.15, 0.5)]
    problem = linear_problem(Lp(Norm.L2, 0.1), DISTANCES)
    once = Recorder(problem.model)
    whole = evaluate(once, CW(steps=120, searches=3), threats[-1], problem.data)
    model = Recorder(problem.model)
    curve = sweep(model, CW(steps=120, searches=3), threats, problem.data)
    assert model.rows == once.rows
    for outcome in curve:
        assert outcome.robust_accuracy == whole.robust_accuracy_at(outcome.threat.eps)
        broken = [i for i, r in enumerate(outcome.records) if not r.robust]
        size = outcome.threat.size(problem.data.x, outcome.adversarials)
        assert (size > 0).nonzero().flatten().tolist() == broken
        assert bool((size <= outcome.threat.eps + 1e-5).all())
        assert all((r.attack == "") == r.robust for r in outcome.records)
    assert len({o.robust_accuracy for o in curve}) == 3


@pytest.mark.parametrize(
    "threats",
    [
        [Lp(Norm.LINF, 0.1), Lp(Norm.L2, 0.2)],
        [Lp(Norm.LINF, 0.1), Lp(Norm.LINF, 0.1)],
        [Lp(Norm.LINF, 0.1), Lp(Norm.LINF, 0.2, queries=5)],
        [],
    ],
)
def test_threats_that_make_no_curve_are_refused(threats) -> None:
    problem = linear_problem(UNIT, DISTANCES)
    with pytest.raises(InputError, match="differ in eps only"):
        sweep(problem.model, FGSM(), threats, problem.data)


def test_the_command_prints_a_curve(rbl, tmp_path) -> None:
    file = tmp_path / "curve.json"
    done = rbl(
        *("attack", "-m", "digits-cnn-at", "-a", "fgsm", "-a", "pgd", "--set", "steps=5"),
        *("--eps", "0.1,0,0.2", "--n", "60", "--json", file),
    )
    assert done.returncode == 0, done.stderr
    entries = json.loads(file.read_text())
    assert [e["threat"]["eps"] for e in entries] == [0.0, 0.1, 0.2] * 2
    robust = [e["robust_accuracy"] for e in entries]
    assert robust[0] == robust[3] == entries[0]["clean_accuracy"]
    assert robust[0] > robust[1] > robust[2]
    assert robust[3] > robust[4] > robust[5]
    rows = [line.split() for line in done.stdout.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["0", "0.1", "0.2"]
    worst = [100 * min(a, b) for a, b in zip(robust[:3], robust[3:], strict=True)]
    assert [float(row[3]) for row in rows] == pytest.approx(worst, abs=2)


def test_an_eps_given_twice_is_refused(refused) -> None:
    said = refused("attack", "-m", "digits-cnn", "-a", "fgsm", "--eps", "0.1,1/10")
    assert "--eps names a distance twice" in said
