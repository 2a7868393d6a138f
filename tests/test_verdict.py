"""The verdict: who goes through which stage, and that nothing is lost by it."""

import json
from dataclasses import replace
from math import inf

import pytest
import torch
from rbl_attacks.apgd import APGD, Start
from rbl_attacks.apgd_t import APGDT
from rbl_attacks.autoattack import STANDARD
from rbl_attacks.fab import FABT
from rbl_attacks.fgsm import FGSM
from rbl_attacks.pdpgd import PDPGD
from rbl_attacks.square import Square
from rbl_attacks.verdict import Effort, Verdict
from torch import Tensor

from robustbench_lite import Access, Cascade, Lp, Norm, evaluate, load_attack, load_data
from robustbench_lite import load_model as load
from robustbench_lite.attack import Attack, IfHidden, Near, Stage
from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.ledger import Ledger
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.rng import Rng
from robustbench_lite.tally import Tally
from robustbench_lite.testing.models import Linear, linear_problem, signed_weights

BALL = Lp(Norm.LINF, 0.1)


def tally(gaps: list[float], lowest: list[float], highest: list[float]) -> Tally:
    n = len(gaps)
    everyone = torch.ones(n, dtype=torch.bool)
    book = Tally(BALL, torch.zeros(n, 1, 2, 2), everyone, everyone)
    book.best.gap = torch.tensor(gaps)
    book.lowest, book.highest = torch.tensor(lowest), torch.tensor(highest)
    return book


def test_a_stage_is_for_samples_that_are_near() -> None:
    book = tally([0.01, 0.04, 0.2, inf], [0.01, 0.04, 0.2, inf], [0.02, 0.045, 0.6, -inf])

    def chosen(**limits: float) -> list[bool]:
        return book.going_on(Stage(FGSM(), **limits)).tolist()

    assert chosen() == [True] * 4
    assert chosen(within=0.04) == [True, True, False, False]
    assert chosen(swings=2.0) == [True, False, True, False]
    assert chosen(within=0.05, swings=2.0) == [True, False, False, False]
    assert chosen(apart=0.008) == [True, False, True, False]
    book.best.size = torch.tensor([0.11, 0.2, inf, 0.12], dtype=torch.float64)
    assert chosen(reach=1.2) == [True, False, False, True]


def test_broken_and_spent_samples_stay_away() -> None:
    book = tally([0.1] * 3, [0.1] * 3, [0.1] * 3)
    book.broken[0] = True
    book.best.budget[1] = 0
    assert book.going_on(Stage(FGSM())).tolist() == [False, False, True]
    assert book.going_on(Stage(PDPGD())).tolist() == [True, False, True]
    assert book.going_on(Stage(PDPGD(), robust_only=True)).tolist() == [False, False, True]


def test_only_whole_runs_along_gradients_tell_how_results_swing() -> None:
    model, data, threat = load("digits-cnn-at"), load_data("digits").sample(16), Lp(Norm.LINF, 0.1)

    def goes_on(*attacks: Attack) -> set[bool]:
        """Of each survivor: does it go through a stage that wants the runs to differ at all?"""
        more = evaluate(
            model, Cascade(*attacks, Near(Square(steps=3), swings=1e9)), threat, data
        ).records
        pairs = zip(more, evaluate(model, Cascade(*attacks), threat, data).records, strict=True)
        return {one.queries > other.queries for one, other in pairs if other.robust}

    assert goes_on(FGSM(), APGD(steps=20)) == {False}
    assert goes_on(APGD(steps=20), Square(steps=50)) == {False}
    assert goes_on(APGD(steps=20)) == {False}
    assert goes_on(APGD(steps=20), APGD(steps=20, start_at=Start.STRIPES)) == {True}


@pytest.mark.parametrize(("targets", "rising"), [(1, True), (2, True), (3, False)])
def test_a_run_towards_another_class_is_no_loss_that_rises(targets: int, rising: bool) -> None:
    book, everybody = tally([inf], [inf], [-inf]), torch.tensor([0])
    claims = Ledger.blank(BALL, book.x, torch.tensor([100]))
    claims.gap, claims.gap_before = torch.tensor([0.1]), torch.tensor([0.2])
    book.add(APGDT(steps=48, targets=targets), everybody, claims)
    assert book.rising.tolist() == [rising]


def test_wider_balls_are_searched_from_more_starts_and_last_with_squares() -> None:
    narrow, middle, wide = (Verdict().stages(Lp(Norm.LINF, eps)) for eps in (0.039, 0.04, 0.1))
    starts = [
        len({(s.attack.start_at, s.attack.loss) for s in plan if isinstance(s.attack, APGD)})
        for plan in (narrow, middle, wide)
    ]
    assert starts == [3, 4, 6]
    squares = [
        [s.hidden for s in plan if isinstance(s.attack, Square)] for plan in (narrow, middle, wide)
    ]
    assert squares == [[True], [True], [False, True]]


def test_near_narrows_what_is_in_it() -> None:
    inner = Near(Cascade(FGSM(), PDPGD()), within=0.3, swings=4, apart=0.2)
    stages = Near(inner, within=0.5, swings=2, apart=0.1, reach=1.5).stages(BALL)
    assert stages == (
        Stage(FGSM(), within=0.3, swings=2, apart=0.2, reach=1.5, robust_only=True),
        Stage(PDPGD(), within=0.3, swings=2, apart=0.2, reach=1.5, robust_only=True),
    )
    assert str(Near(FGSM(), within=0.3)) == f"Near({FGSM()}, within=0.3)"
    assert str(Near(FGSM(), apart=0.2)) == f"Near({FGSM()}, apart=0.2)"
    assert str(stages[0]).endswith("gap <= 0.3, swings <= 2, size / eps <= 1.5, runs apart >= 0.2")


def test_only_what_stays_within_the_threat_tells_how_near_it_came() -> None:
    model, data = load("digits-cnn-at"), load_data("digits").sample(40)
    fabt, threat = FABT(steps=90), Lp(Norm.LINF, 0.05)
    outcome = evaluate(model, fabt, threat, data)
    assert 0 < outcome.robust_accuracy < 1
    assert {r.gap for r in outcome.records} == {None}
    kept = evaluate(model, Cascade(APGD(steps=20), fabt), threat, data)
    gaps = [r.gap for r in kept.records if r.robust]
    assert gaps == [
        r.gap
        for r, other in zip(
            evaluate(model, APGD(steps=20), threat, data).records, kept.records, strict=True
        )
        if other.robust
    ]
    assert all(gap is not None and gap >= 0 for gap in gaps)


def test_a_plan_for_hidden_gradients_leaves_sound_models_alone() -> None:
    problem = linear_problem(BALL, (0.5, 2.0, 3.0))
    plan = Cascade(FGSM(), IfHidden(Square(steps=50)))
    with_it = evaluate(problem.model, plan, BALL, problem.data)
    without = evaluate(problem.model, FGSM(), BALL, problem.data)
    assert [r.queries for r in with_it.records] == [r.queries for r in without.records]


@pytest.mark.parametrize("effort", Effort)
@pytest.mark.parametrize(
    ("norm", "eps"), [(Norm.LINF, 0.03), (Norm.LINF, 0.05), (Norm.LINF, 0.1), (Norm.L2, 0.1)]
)
def test_on_a_linear_model_it_is_exact(norm: Norm, eps: float, effort: Effort) -> None:
    distances = (0.2, 0.9, 0.97, 1.03, 1.1, 2.0)
    threat = Lp(norm, eps)
    problem = linear_problem(threat, distances)
    outcome = evaluate(problem.model, Verdict(effort), threat, problem.data)
    assert [r.robust for r in outcome.records] == [d > 1 for d in distances]


@pytest.mark.parametrize(
    ("name", "data", "eps", "n"),
    [("mnist-cnn-at", "mnist5k", 0.3, 20), ("digits-cnn", "digits", 0.1, 40)],
)
def test_it_finds_what_autoattack_finds_and_asks_less(
    name: str, data: str, eps: float, n: int
) -> None:
    samples, threat = load_data(data).sample(n, 1), Lp(Norm.LINF, eps)
    ours = evaluate(load(name), Verdict(), threat, samples)
    theirs = evaluate(load(name), STANDARD, threat, samples)
    assert ours.robust_accuracy <= theirs.robust_accuracy
    assert ours.queries_per_sample < 0.2 * theirs.queries_per_sample


@pytest.mark.parametrize(("name", "eps"), [("digits-clip", 0.03), ("digits-cnn", 0.05)])
def test_in_narrower_balls_it_finds_what_long_ascents_find(name: str, eps: float) -> None:
    samples, threat = load_data("digits").sample(100, 1), Lp(Norm.LINF, eps)
    ours = evaluate(load(name), Verdict(), threat, samples)
    long = evaluate(load(name), Cascade(APGD(), APGDT(steps=450)), threat, samples)
    assert 0 < long.robust_accuracy < long.clean_accuracy
    assert {r.id for r in ours.records if r.robust} <= {r.id for r in long.records if r.robust}
    assert ours.queries_per_sample < 0.3 * long.queries_per_sample


def test_more_effort_finds_no_less() -> None:
    samples, threat = load_data("digits").sample(100), Lp(Norm.LINF, 0.05)
    quick, standard = (
        evaluate(load("digits-cnn"), Verdict(effort), threat, samples)
        for effort in (Effort.QUICK, Effort.STANDARD)
    )
    assert standard.robust_accuracy <= quick.robust_accuracy
    assert standard.queries_per_sample >= quick.queries_per_sample
    few, many = (
        {stage.attack for stage in Verdict(effort).stages(BALL) if not stage.hidden}
        for effort in (Effort.QUICK, Effort.STANDARD)
    )
    assert few < many
    every = Verdict(Effort.THOROUGH).stages(BALL)
    assert every[: len(Verdict().stages(BALL))] == Verdict().stages(BALL)
    assert set(STANDARD.stages(BALL)) < set(every)
    assert Stage(Square(steps=10000)) in every


def test_without_gradients_it_searches_blindly() -> None:
    blind = replace(BALL, access=Access.SCORES)
    assert {type(a) for a in Verdict().attacks(blind)} == {Square}
    outcome = evaluate(load("digits-hog-linear"), Verdict(), BALL, load_data("digits").sample(40))
    assert outcome.robust_accuracy < 0.2


def starts(norm: Norm, start: Start) -> tuple[Tensor, Tensor]:
    x = torch.full((6, 2, 5, 4), 0.5)
    model = Classifier(Linear(signed_weights(2, 40, 0)))
    y, keys = torch.zeros(6, dtype=torch.long), torch.arange(6)
    oracle = Oracle(Passes(model), Lp(norm, 0.2), x, y, 2)
    return x, APGD(start_at=start).start(oracle, x, y, Rng(keys)).adv - x


def test_several_squares_at_once_are_as_many_queries() -> None:
    x = torch.full((3, 1, 8, 8), 0.5)
    model = Classifier(Linear(signed_weights(2, 64, 0)))
    y, keys = torch.zeros(3, dtype=torch.long), torch.arange(3)
    oracle, rng = Oracle(Passes(model), BALL, x, y, 2), Rng(keys)
    attack = Square(steps=10, at_once=4)
    state = attack.step(oracle, x, y, rng, attack.start(oracle, x, y, rng))
    assert state.turn.tolist() == oracle.ledger.queries.tolist() == [4, 4, 4]
    assert state.asked.shape == (3, 4, 1, 8, 8)
    assert all(len(torch.unique(each, dim=0)) > 1 for each in state.asked.flatten(2))


@pytest.mark.parametrize(("patience", "asked"), [(11.0, 12), (12.0, 16), (1e9, 40)])
def test_squares_give_up_where_margins_do_not_shrink(patience: float, asked: int) -> None:
    """Of two classes the margin is all of the span, so that a move costs its queries."""
    problem = linear_problem(threat := Lp(Norm.LINF, 0.1), [8.0] * 5)
    attack = Square(steps=10, at_once=4, patience=patience)
    outcome = evaluate(problem.model, attack, threat, problem.data)
    spent = {record.queries for record in outcome.records if record.correct}
    assert spent == {asked + 1}  # the last proposal is asked about as well


def test_corners_and_stripes_are_where_they_are_said_to_be() -> None:
    _, corner = starts(Norm.LINF, Start.CORNER)
    assert torch.allclose(corner.abs(), torch.tensor(0.2))
    _, stripes = starts(Norm.LINF, Start.STRIPES)
    assert torch.allclose(stripes.abs(), torch.tensor(0.2))
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes))
    assert not torch.equal(corner, corner[:, :, :1].expand_as(corner))
    for start in (Start.CORNER, Start.STRIPES):
        _, round_ = starts(Norm.L2, start)
        assert torch.allclose(round_.flatten(1).norm(dim=1), torch.tensor(0.2))


def test_the_command_takes_the_verdict_by_default(rbl, tmp_path) -> None:
    done = rbl("attack", "--model", "digits-cnn", "--n", 30, "--json", "o.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "o.json").read_text())
    assert entry["attack"] == "Verdict(effort=standard)"
    assert entry["trust"] == "ok"
    assert entry["doubts"] == []
    assert "trust" in done.stdout
    quick = rbl("attack", "--model", "digits-cnn", "--n", 30, "--effort", "quick", cwd=tmp_path)
    assert quick.returncode == 0, quick.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--attack", "pgd", "--effort", "quick"], "--effort 'quick' is for the attack verdict"),
        (["--effort", "hard"], "effort"),
        (["--norm", "l1", "--eps", "1"], "attack 'verdict' does not support l1 with eps 1"),
    ],
)
def test_what_the_verdict_cannot_do_is_told(rbl, options, told) -> None:
    done = rbl("attack", "--model", "digits-cnn", *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_efforts_are_checked() -> None:
    with pytest.raises(InputError, match="quick"):
        load_attack("verdict", effort="hard")
