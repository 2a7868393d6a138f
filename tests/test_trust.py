"""What an evaluation says of its own figures: sound models are not doubted, others are."""

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite.judge as judge
import robustbench_lite.verifier as verifier
from robustbench_lite import (
    Classifier,
    Dataset,
    Lp,
    Norm,
    Restarts,
    evaluate,
    load_attack,
    load_data,
    worst_case,
)
from robustbench_lite import load_model as load
from robustbench_lite.health import health_of
from robustbench_lite.passes import Passes
from robustbench_lite.results import Outcome
from robustbench_lite.testing.models import Linear, linear_problem, signed_weights
from robustbench_lite.trust import Trust, fail, least, warn

SOUND = ["digits-cnn", "digits-cnn-at", "mnist-cnn", "mnist-vit", "mnist-clip", "mnist-lenet"]
EPS = {"digits-cnn": 0.1, "digits-cnn-at": 0.1}
BALL = Lp(Norm.LINF, 0.1)


class Changed(nn.Module):
    """A model whose outputs are changed by a function."""

    def __init__(self, model: nn.Module, change: nn.Module) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.change(self.model(x))
        return changed


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Levels(nn.Module):
    """Rounds pixels to so many levels on the way in; the gradient passes as if it did not."""

    def __init__(self, model: nn.Module, levels: int, *, honest: bool) -> None:
        super().__init__()
        self.model, self.levels, self.honest = model, levels, honest

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * self.levels).round() / self.levels
        logits: Tensor = self.model(rounded if self.honest else x + (rounded - x).detach())
        return logits


class Wavering(nn.Module):
    """Turns its answer about in three of ten passes, by torch's own generator."""

    def __init__(self, model: nn.Module, share: float = 0.3) -> None:
        super().__init__()
        self.model, self.share = model, share

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        turned = torch.rand(len(logits), 1) < self.share
        return torch.where(turned, logits.flip(1), logits)


def digits(n: int) -> Dataset:
    return load_data("digits").sample(n)


def whys(outcome: Outcome) -> str:
    return "; ".join(doubt.why for doubt in outcome.doubts)


def test_trust_is_what_the_worst_doubt_leaves() -> None:
    assert least([]) is Trust.OK
    assert least([warn("a"), warn("b")]) is Trust.WARN
    assert least([warn("a"), fail("b"), warn("c")]) is Trust.FAIL
    assert fail("b").to_json() == {"trust": "fail", "why": "b"}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_is_not_doubted(name: str) -> None:
    data = digits(60) if name.startswith("digits") else load_data("mnist5k").sample(60)
    outcome = evaluate(
        load(name), load_attack("verdict", effort="quick"), Lp(Norm.LINF, EPS.get(name, 0.05)), data
    )
    assert outcome.doubts == ()
    assert outcome.trust is Trust.OK


def agreement(model: nn.Module, x: Tensor) -> tuple[float, float]:
    health = health_of(Passes(Classifier(model)), x, torch.arange(len(x)))
    return health.agreement, health.flat


def test_the_probe_tells_sound_gradients_from_others() -> None:
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    linear = Linear(signed_weights(3, 36, 0))
    assert agreement(linear, x) == (pytest.approx(1.0, abs=1e-3), 0.0)
    assert agreement(Changed(linear, Times(-1.0)), x)[0] == pytest.approx(1.0, abs=1e-3)
    assert agreement(Levels(linear, 7, honest=False), x)[0] < 0.7
    assert agreement(Levels(linear, 7, honest=True), x) == (0.0, 1.0)


class Lying(nn.Module):
    """The right logits, and the gradient of the opposite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return 2 * logits.detach() - logits


def test_gradients_that_lie_are_told_and_searched_around() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.6,) * 20)
    model, threat = Lying(problem.model), Lp(Norm.LINF, 0.1)
    alone = evaluate(model, load_attack("pgd"), threat, problem.data)
    assert alone.robust_accuracy == 1.0
    assert alone.trust is Trust.FAIL
    assert "add an attack without gradients" in whys(alone)
    outcome = evaluate(model, load_attack("verdict"), threat, problem.data)
    assert outcome.robust_accuracy == 0.0
    assert outcome.trust is Trust.FAIL
    assert "a search without gradients was added" in whys(outcome)
    assert "20 samples were broken only without gradients" in whys(outcome)


@pytest.mark.parametrize("factor", [1e4, 1e6])
def test_large_logits_are_told_and_change_nothing(factor: float) -> None:
    threat, data, attack = Lp(Norm.LINF, 0.1), digits(100), load_attack("pgd", steps=20)
    plain = evaluate(load("digits-cnn"), attack, threat, data)
    large = evaluate(Changed(load("digits-cnn"), Times(factor)), attack, threat, data)
    assert "searched on rescaled logits" in whys(large)
    assert large.trust is Trust.WARN
    assert [r.robust for r in large.records] == [r.robust for r in plain.records]


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_probabilities_are_told_and_searched_in_logarithms(factor: float) -> None:
    threat, data, attack = Lp(Norm.LINF, 0.1), digits(100), load_attack("pgd", steps=20)
    plain = evaluate(load("digits-cnn"), attack, threat, data)
    certain = nn.Sequential(Times(factor), nn.Softmax(1))
    outcome = evaluate(Changed(load("digits-cnn"), certain), attack, threat, data)
    assert "the outputs are probabilities" in whys(outcome)
    assert outcome.trust is Trust.WARN
    differing = sum(
        a.robust != b.robust for a, b in zip(outcome.records, plain.records, strict=True)
    )
    assert differing <= 1


def test_a_random_model_is_broken_by_the_majority_only(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (3.0,) * 30)
    model, threat = Wavering(problem.model), Lp(Norm.LINF, 0.1)
    attack = load_attack("pgd", steps=3)
    outcome = evaluate(model, attack, threat, problem.data)
    assert outcome.clean_accuracy == outcome.robust_accuracy == 1.0
    assert "the model is random" in whys(outcome)
    monkeypatch.setattr(judge, "FIRST", range(1))
    monkeypatch.setattr(verifier, "FIRST", range(1))
    monkeypatch.setattr(verifier, "_CONFIRMING", range(1))
    single = evaluate(model, attack, threat, problem.data)
    assert single.robust_accuracy < 0.8


def test_of_many_looks_the_luckiest_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (3.0,) * 60)
    model, threat = Wavering(problem.model, 0.45), Lp(Norm.LINF, 0.1)
    attack = Restarts(load_attack("pgd", steps=3), 10)
    outcome = evaluate(model, attack, threat, problem.data)
    assert outcome.robust_accuracy > 0.8 * outcome.clean_accuracy > 0.5
    monkeypatch.setattr(verifier, "_CONFIRMING", range(1, 2))
    lucky = evaluate(model, attack, threat, problem.data)
    assert lucky.robust_accuracy < 0.6 * lucky.clean_accuracy


class Trembling(nn.Module):
    """A little noise on the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + 0.01 * logits.abs().mean() * torch.randn_like(logits)


def test_of_a_random_model_the_deepest_example_is_kept() -> None:
    threat = Lp(Norm.LINF, 0.1)
    problem = linear_problem(threat, (0.5,) * 10)
    attack = load_attack("pgd", steps=20, step_size=0.1, random_start=False, loss="margin")
    sizes = [
        [r.size for r in evaluate(model, attack, threat, problem.data).records]
        for model in (problem.model, Trembling(problem.model))
    ]
    assert sizes[0] == [pytest.approx(0.06, abs=0.011)] * 10
    assert sizes[1] == [pytest.approx(0.1, abs=0.011)] * 10


def test_a_majority_breaks_a_random_model() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.2,) * 20)
    outcome = evaluate(
        Wavering(problem.model),
        load_attack("pgd", loss="margin"),
        Lp(Norm.LINF, 0.1),
        problem.data,
    )
    assert outcome.clean_accuracy == 1.0
    assert outcome.robust_accuracy == 0.0


def test_a_search_that_ends_too_early_is_told() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (1.05,) * 20)
    slow = load_attack("pgd", steps=20, step_size=0.04, random_start=False)
    outcome = evaluate(problem.model, slow, Lp(Norm.LINF, 0.1), problem.data)
    assert outcome.robust_accuracy == 1.0
    assert "on 20 of 20 survivors the loss was still rising" in whys(outcome)
    longer = load_attack("pgd", steps=60, step_size=0.04, random_start=False)
    assert evaluate(problem.model, longer, Lp(Norm.LINF, 0.1), problem.data).doubts == ()


def test_the_gap_of_a_survivor_is_how_near_the_attack_came() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.5, 1.25, 2.0, 4.0))
    outcome = evaluate(problem.model, load_attack("pgd"), Lp(Norm.LINF, 0.1), problem.data)
    gaps = [record.gap for record in outcome.records]
    assert gaps[0] is None
    # A linear model: at eps of the way to a border at d eps, (d - 1) / d of the lead is left.
    # With two classes the lead is the whole span of the image's logits.
    assert gaps[1:] == [pytest.approx(1 - 1 / d, abs=0.02) for d in (1.25, 2.0, 4.0)]
    narrow = evaluate(problem.model, load_attack("ddn"), Lp(Norm.L2, 0.001), problem.data)
    assert [record.gap for record in narrow.records] == [None] * 4


class Cliff(nn.Module):
    """The right gradient at the image itself, the opposite one a little away from it."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model, self.x = model, x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        away = (x.detach()[:, None] - self.x).flatten(2).abs().amax(2).amin(1, keepdim=True) > 1e-3
        return torch.where(away, 2 * logits.detach() - logits, logits)


def test_a_single_step_that_beats_many_is_told() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.8,) * 20)
    model, threat = Cliff(problem.model, problem.data.x), Lp(Norm.LINF, 0.1)
    names = {"fgsm": {}, "pgd": {"steps": 10}}
    single, many = (
        evaluate(model, load_attack(name, **fields), threat, problem.data)
        for name, fields in names.items()
    )
    assert (single.robust_accuracy, many.robust_accuracy) == (0.0, 1.0)
    assert "a single step broke 20 samples more than PGD(steps=10" in whys(
        worst_case([single, many])
    )
    sound = [evaluate(problem.model, load_attack(name), threat, problem.data) for name in names]
    assert worst_case(sound).doubts == ()


def test_the_worst_case_has_the_least_gap_of_what_stayed_robust() -> None:
    problem = linear_problem(BALL, (0.2, 0.9, 1.5, 3.0))
    near, far = load_attack("pgd"), load_attack("pgd", steps=1, step_size=0.01, random_start=False)
    outcomes = [evaluate(problem.model, attack, BALL, problem.data) for attack in (far, near)]
    assert outcomes[0].records[1].robust
    worst = worst_case(outcomes).records
    assert [r.gap for r in worst] == [None, None, *(r.gap for r in outcomes[1].records[2:])]
    assert worst[2].gap is not None
    assert outcomes[0].records[2].gap is not None
    assert worst[2].gap < outcomes[0].records[2].gap
