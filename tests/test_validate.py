"""`rbl validate` as a process: the graded table, the exit code, the reproducing options."""

import json

import pytest
import torch
from rbl_attacks import PGD
from scipy.optimize import linprog, minimize

from robustbench_lite.testing import CHECKS, run_check
from robustbench_lite.testing.exactness import halfspace_distance
from robustbench_lite.testing.models import generator
from robustbench_lite.threat import Norm


def test_an_attack_that_keeps_every_promise_is_graded_so(rbl, tmp_path):
    file = tmp_path / "checks.json"
    done = rbl("validate", "fgsm", "--norm", "linf", "--json", file, COLUMNS="100")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert [c["check"] for c in report["checks"]] == list(CHECKS)
    kept = sum(c["verdict"] == "kept" for c in report["checks"])
    assert f"{kept} of {kept} promises kept" in done.stdout
    assert kept >= len(CHECKS) - 2
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_broken_promise_is_named_and_ends_with_exit_code_1(rbl):
    done = rbl(
        *("validate", "pgd", "--set", "steps=1", "--set", "step_size=1e-30"),
        *("--set", "random_start=false", "--check", "finds_something", "--check", "eps_zero"),
    )
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith(("finds", "eps_zero"))]
    assert [line.split()[1] for line in lines] == ["BROKEN", "kept"]
    assert "0 of 16 found" in done.stdout
    assert "1 of 2 promises kept" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fgsm", "--check", "scaled_logit"), "no check is called 'scaled_logit'"),
        (("cw", "--norm", "linf"), "does not support --norm linf"),
        (("fgsm", "--norm", "l7"), "--norm 'l7' is unknown"),
        (("nothing",), "no attack is called 'nothing'"),
    ],
)
def test_bad_input_is_refused_kindly(forked_refused, arguments, words):
    assert words in forked_refused("validate", *arguments)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("norm", list(Norm))
def test_the_distance_to_a_halfspace_in_the_box_is_exact(norm: Norm, seed: int) -> None:
    stream = generator(seed)
    x = torch.rand(1, 5, generator=stream)
    weight = torch.randn(5, generator=stream)
    room = torch.where(weight > 0, 1 - x, x)[0]
    gap = 0.7 * float((weight.abs() * room).sum())
    got = float(halfspace_distance(x, weight, torch.tensor([gap]), norm))
    slope, space = weight.abs().double().numpy(), room.double().numpy()
    bounds = [(0.0, float(r)) for r in space]
    if norm is Norm.L1:
        best = linprog([1.0] * 5, A_ub=[-slope], b_ub=[-gap], bounds=bounds).fun
    elif norm is Norm.LINF:
        rows = [[*(-slope), 0.0]] + [
            [1.0 if i == j else 0.0 for j in range(5)] + [-1.0] for i in range(5)
        ]
        limit = [-gap] + [0.0] * 5
        best = linprog([0.0] * 5 + [1.0], A_ub=rows, b_ub=limit, bounds=[*bounds, (0, 1)]).fun
    elif norm is Norm.L2:
        enough = {"type": "ineq", "fun": lambda d: slope @ d - gap}
        done = minimize(
            lambda d: (d**2).sum(), space, bounds=bounds, constraints=[enough], tol=1e-14
        )
        best = float(done.fun) ** 0.5
    else:
        gains = sorted(slope * space, reverse=True)
        best = next(k for k in range(1, 6) if sum(gains[:k]) >= gap)
    assert got == pytest.approx(best, rel=1e-5)


def test_a_halfspace_that_the_box_does_not_reach_is_infinitely_far() -> None:
    x, weight = torch.full((2, 3), 0.5), torch.ones(3)
    got = halfspace_distance(x, weight, torch.tensor([2.0, -1.0]), Norm.L2)
    assert got.tolist() == [float("inf"), 0.0]


def test_an_attack_that_takes_tiny_steps_is_not_near_the_exact_answer() -> None:
    assert run_check("near_linear", PGD(steps=40)).passed
    weak = run_check("near_linear", PGD(steps=5, step_size=0.05, random_start=False))
    assert not weak.passed
    assert "easy samples are still robust" in weak.detail
