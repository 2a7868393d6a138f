"""Transfer attacks on a surrogate, their gradients, and what no attack may do worse than noise."""

import json
from pathlib import Path

import pytest
import torch
from rbl_attacks.apgd import APGD
from rbl_attacks.di_fgsm import DIFGSM, Resizing, diverse_gradient
from rbl_attacks.fgsm import FGSM
from rbl_attacks.mi_fgsm import MIFGSM
from rbl_attacks.noise import Kind, Noise
from rbl_attacks.pgd import PGD
from rbl_attacks.ti_fgsm import TIFGSM
from torch import Tensor

from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Loss,
    Lp,
    Norm,
    Outcome,
    Rng,
    Targeted,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.goal import Choice
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.models import (
    DecisionsOnly,
    Linear,
    Recorder,
    conv_problem,
    generator,
)

TRANSFER: list[Attack] = [MIFGSM(), DIFGSM(), TIFGSM(), TIFGSM(probability=0.5)]
LINF = Lp(Norm.LINF, 0.15)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits").take(range(100))


def broken(outcome: Outcome) -> Tensor:
    return torch.tensor([r.correct and not r.robust for r in outcome.records])


@pytest.mark.parametrize("attack", TRANSFER, ids=str)
def test_the_target_is_asked_once_a_sample_and_the_surrogate_in_every_step(
    attack: Attack, digits: Dataset
) -> None:
    target, surrogate = Recorder(load_model("digits-cnn")), Recorder(load_model("digits-cnn-at"))
    outcome = evaluate(target, attack, LINF, digits, surrogate=surrogate)
    right = sum(record.correct for record in outcome.records)
    fooled = int(broken(outcome).sum())
    assert 0 < fooled < right < len(digits)
    # The clean pass, the look for randomness, the last proposals, and the judge's second look.
    assert target.rows == len(digits) + 32 + right + fooled
    assert surrogate.rows == attack.steps * right
    for record in outcome.records:
        assert record.queries == int(record.correct)
        assert record.backwards == attack.steps * record.correct


@pytest.mark.parametrize("attack", TRANSFER, ids=str)
def test_what_fools_a_surrogate_fools_its_twin_and_an_unrelated_model_less(
    attack: Attack, digits: Dataset
) -> None:
    model = load_model("digits-cnn")
    twin = evaluate(model, attack, LINF, digits, surrogate=load_model("digits-cnn"))
    related = evaluate(model, attack, LINF, digits, surrogate=load_model("digits-cnn-at"))
    unrelated = evaluate(
        model, attack, LINF, digits, surrogate=conv_problem(1, shape=(1, 8, 8), classes=10).model
    )
    direct = evaluate(model, attack, LINF, digits)
    assert twin.robust_accuracy < related.robust_accuracy < unrelated.robust_accuracy
    # A direct attack may stop at any step, one by a surrogate is judged by its last point.
    assert int((broken(twin) & ~broken(direct)).sum()) == 0
    assert twin.robust_accuracy <= direct.robust_accuracy + 0.1


@pytest.mark.parametrize("attack", TRANSFER, ids=str)
def test_transfer_reaches_for_a_class(attack: Attack, digits: Dataset) -> None:
    model, goal = load_model("digits-cnn"), Targeted(Choice.NEXT)
    wide = Lp(Norm.LINF, 0.3)
    outcome = evaluate(model, attack, wide, digits, goal=goal, surrogate=load_model("digits-cnn"))
    lost = broken(outcome)
    assert int(lost.sum()) > 30
    with torch.no_grad():
        assert torch.equal(model(outcome.adversarials[lost]).argmax(1), (digits.y[lost] + 1) % 10)


def test_a_target_that_shows_labels_only_is_enough(digits: Dataset) -> None:
    labels_only = Classifier(DecisionsOnly(load_model("digits-cnn")), access=Access.DECISIONS)
    threat = Lp(Norm.LINF, 0.15, Access.DECISIONS, queries=1)
    outcome = evaluate(labels_only, MIFGSM(), threat, digits, surrogate=load_model("digits-cnn"))
    whole = evaluate(
        load_model("digits-cnn"), MIFGSM(), LINF, digits, surrogate=load_model("digits-cnn")
    )
    assert torch.equal(broken(outcome), broken(whole))


@pytest.mark.parametrize("attack", TRANSFER, ids=str)
def test_on_a_linear_model_every_step_is_the_best_one(attack: Attack) -> None:
    """The gradient is the same everywhere: all end in the corner of the ball, unless smoothed."""
    smooth = torch.ones(2, 64)
    smooth[0] = -1
    x = 0.4 + 0.2 * torch.rand(5, 1, 8, 8, generator=generator(1))
    seen = Recorder(Linear(smooth), keep=True)
    oracle = Oracle(Passes(Classifier(seen)), Lp(Norm.LINF, 0.05), x, torch.zeros(5).long(), 2)
    keys = torch.arange(5)
    state = attack.start(oracle, x, oracle.y, Rng(keys))
    for step in range(1, attack.steps + 1):
        rng = Rng(keys, torch.full_like(keys, step))
        state = attack.step(oracle, x, oracle.y, rng, state)
    assert torch.allclose(state.adv - x, torch.full_like(x, 0.05), atol=1e-6)


def test_the_gradient_is_taken_where_the_walk_stands() -> None:
    problem = conv_problem(1, shape=(1, 6, 6))
    x, y = problem.data.x, problem.data.y
    seen = Recorder(problem.model, keep=True)
    oracle = Oracle(Passes(Classifier(seen)), Lp(Norm.LINF, 0.1), x, y, 5)
    attack, rng = MIFGSM(steps=4), Rng(torch.arange(1))
    state = attack.start(oracle, x, y, rng)
    for _ in range(4):
        stands = state.adv
        state = attack.step(oracle, x, y, rng, state)
        assert torch.equal(seen.seen[-1], stands)
        assert not torch.equal(state.adv, stands)


def test_momentum_is_the_sum_of_unit_gradients() -> None:
    """Two gradients by hand: with decay 0.5 the second counts in full, the first by half."""
    x = torch.full((1, 1, 1, 2), 0.5)
    oracle = Oracle(
        Passes(Classifier(Linear(torch.tensor([[0.0, 0.0], [3.0, -1.0]])))),
        Lp(Norm.L2, 0.1),
        x,
        torch.zeros(1).long(),
        2,
    )
    attack, rng = MIFGSM(decay=0.5, step_size=0.25), Rng(torch.arange(1))
    state = attack.start(oracle, x, oracle.y, rng)
    state = attack.step(oracle, x, oracle.y, rng, state)
    assert state.momentum.flatten().tolist() == pytest.approx([0.75, -0.25])
    unit = torch.tensor([3.0, -1.0]) / 10**0.5
    assert torch.allclose((state.adv - x).flatten(), 0.025 * unit, atol=1e-6)
    state = attack.step(oracle, x, oracle.y, rng, state)
    assert state.momentum.flatten().tolist() == pytest.approx([1.125, -0.375])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 5), (1, 1, 6)], ids=str)
def test_shrinking_keeps_colours_and_pads_with_black(shape: tuple[int, int, int]) -> None:
    x = 0.2 + 0.8 * torch.rand(40, *shape, generator=generator(2))
    rng = Rng(torch.arange(40))
    same = Resizing.draw(x, rng, 0.0, 0.5)
    assert torch.allclose(same.apply(x), x, atol=1e-6)
    change = Resizing.draw(x, rng, 1.0, 0.5)
    plain = change.apply(torch.full_like(x, 0.7))
    assert set(plain.mul(1e4).round().unique().tolist()) <= {0.0, 7000.0}
    lit = (plain > 0.1)[:, 0]
    rows, columns = lit.any(2).sum(1), lit.any(1).sum(1)
    assert torch.equal(lit.flatten(1).sum(1), rows * columns)
    for sides, length in ((rows, shape[1]), (columns, shape[2])):
        assert int(sides.min()) >= length / 2
        assert int(sides.max()) <= length
        assert len(sides.unique()) > 1 or length == 1
    assert float(change.apply(x).max()) <= 1 + 1e-6


def test_the_gradient_through_the_change_is_autograds() -> None:
    problem = conv_problem(6, shape=(2, 7, 9))
    x, y = problem.data.x, problem.data.y
    oracle = Oracle(Passes(Classifier(problem.model)), LINF, x, y, 5)
    change = Resizing.draw(x, Rng(torch.arange(6)), 1.0, 0.6)
    found = diverse_gradient(oracle, x, y, Loss.MARGIN, change)
    leaf = x.clone().requires_grad_(True)
    Loss.MARGIN(problem.model(change.apply(leaf)), y).sum().backward()
    assert torch.allclose(found, leaf.grad, atol=1e-5)


def test_smoothing_is_the_convolution_with_the_papers_gaussian() -> None:
    gradient = torch.randn(2, 3, 64, 72, generator=generator(3))
    got = TIFGSM(kernel=15)._smoothed(gradient)
    at = torch.arange(-7, 8) / 7 * 3.0
    bell = torch.exp(-at.square() / 2)
    kernel = (bell[:, None] * bell).expand(3, 1, 15, 15)
    expected = torch.nn.functional.conv2d(gradient, kernel, padding=7, groups=3)
    assert torch.allclose(got, expected, atol=1e-3)


GRADIENT: list[Attack] = [FGSM(), PGD(steps=10), APGD(steps=10), *TRANSFER[:3]]


@pytest.mark.parametrize("kind", list(Kind))
def test_no_gradient_attack_breaks_less_than_noise(kind: Kind) -> None:
    data, model = load_data("digits").take(range(120)), load_model("digits-cnn-at")
    for eps in (0.15, 0.25):
        noise = evaluate(model, Noise(steps=50, kind=kind), Lp(Norm.LINF, eps), data)
        assert noise.robust_accuracy < noise.clean_accuracy
        for attack in GRADIENT:
            outcome = evaluate(model, attack, Lp(Norm.LINF, eps), data)
            assert outcome.robust_accuracy <= noise.robust_accuracy, attack


@pytest.mark.parametrize(("norm", "eps"), [(Norm.L2, 1.2), (Norm.L1, 4.0)])
def test_nor_in_other_norms(norm: Norm, eps: float) -> None:
    data, model = load_data("digits").take(range(100)), load_model("digits-cnn-at")
    noise = evaluate(model, Noise(steps=50), Lp(norm, eps), data)
    assert noise.robust_accuracy < noise.clean_accuracy
    for name in ("pgd", "apgd", "mi-fgsm"):
        attack = load_attack(name, steps=20)
        if attack.supports(Lp(norm, eps)):
            outcome = evaluate(model, attack, Lp(norm, eps), data)
            assert outcome.robust_accuracy <= noise.robust_accuracy, name


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("kind", list(Kind))
def test_noise_keeps_to_the_ball_and_reaches_its_edge(norm: Norm, kind: Kind) -> None:
    threat = Lp(norm, {Norm.L0: 3, Norm.L1: 0.25, Norm.L2: 0.3, Norm.LINF: 0.1}[norm])
    x = 0.3 + 0.4 * torch.rand(1, 1, 5, 5, generator=generator(6))
    x = x.expand(400, -1, -1, -1)
    rng = Rng(torch.arange(400))
    adv = Noise(kind=kind)._draw(threat, x, rng)
    assert bool(threat.contains(x, adv).all())
    size = threat.size(x, adv) / threat.eps
    at_edge = float((size > 0.999).double().mean())
    assert at_edge > (0.9 if kind is Kind.GAUSSIAN or norm is Norm.L0 else 0.4)
    if kind is Kind.UNIFORM and norm in (Norm.L1, Norm.L2):
        assert float((size < 0.999).double().mean()) > 0.3


def test_the_command_line_transfers(rbl, tmp_path: Path) -> None:
    """Once as a user would, in a real process."""
    words = ("--model", "digits-cnn", "--attack", "mi-fgsm", "--n", 50, "--eps", 0.2)
    done = rbl("attack", *words, "--surrogate", "digits-cnn-at", "--json", "t.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mi-fgsm" in done.stdout
    (entry,) = json.loads((tmp_path / "t.json").read_text())
    data = load_data("digits").sample(50, 0)
    outcome = evaluate(
        load_model("digits-cnn"),
        MIFGSM(),
        Lp(Norm.LINF, 0.2),
        data,
        surrogate=load_model("digits-cnn-at"),
    )
    assert entry["robust_accuracy"] == outcome.robust_accuracy
    assert entry["robust_accuracy"] < entry["clean_accuracy"]
    assert entry["attack"].endswith("on digits-cnn-at")
    assert all(sample["queries"] == int(sample["correct"]) for sample in entry["samples"])


def test_the_command_line_refuses_what_makes_no_sense_on_a_surrogate(forked_refused) -> None:
    words = ("attack", "--model", "digits-cnn", "--n", 5, "--surrogate", "digits-cnn-at")
    minimal = (*words, "--attack", "cw", "--norm", "l2", "--eps", 1)
    assert "shrinks the perturbation" in forked_refused(*minimal)
    assert "no model is called 'digits'" in forked_refused(*words[:-1], "digits", "-a", "mi-fgsm")
