"""What tells each attack from a lesser one, with exact answers where there are any."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rbl_attacks.apgd import APGD, _spans, begin, climb
from rbl_attacks.apgd_t import APGDT, Order, ratio_towards
from rbl_attacks.autoattack import PLUS, RAND, STANDARD
from rbl_attacks.boundary import Boundary
from rbl_attacks.ddn import DDN
from rbl_attacks.deepfool import DeepFool
from rbl_attacks.fab import FAB, FABT
from rbl_attacks.fmn import FMN
from rbl_attacks.hopskipjump import HopSkipJump
from rbl_attacks.hyperplane import onto_hyperplane
from rbl_attacks.mi_fgsm import unit_l1
from rbl_attacks.noise import Noise
from rbl_attacks.pgd import PGD
from rbl_attacks.rays import RayS
from rbl_attacks.sigma_zero import SigmaZero
from rbl_attacks.square import Square
from rbl_attacks.superdeepfool import SuperDeepFool
from scipy.optimize import minimize
from torch import Tensor

from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Rng,
    Targeted,
    UnsupportedError,
    evaluate,
    load_data,
    load_model,
)
from robustbench_lite.geometry import flat_norm, project_l1_box
from robustbench_lite.goal import Choice
from robustbench_lite.ledger import Ledger
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.exactness import Faces, halfspace_distance
from robustbench_lite.testing.models import (
    DecisionsOnly,
    Linear,
    Recorder,
    generator,
    linear_problem,
    signed_weights,
)


def plane(norm: Norm, n: int = 24, faces: int = 1) -> tuple[Faces, Dataset, Tensor]:
    """Images beside one or more planes, and the exact distance within the box."""
    weight = signed_weights(faces, 36, 5)
    x = 0.3 + 0.4 * torch.rand(n, 36, generator=generator(6))
    offset = (x @ weight.T).amax(0) + 0.1
    gaps = offset - x @ weight.T
    each = [halfspace_distance(x, weight[f], gaps[:, f], norm) for f in range(faces)]
    data = Dataset(x.reshape(-1, 1, 6, 6), torch.zeros(n, dtype=torch.long))
    return Faces(weight, offset), data, torch.stack(each).amin(0)


EXACT: list[tuple[Attack, Norm, float]] = [
    (FMN(steps=200), Norm.L1, 1.02),
    (FMN(steps=200), Norm.L2, 1.01),
    (FMN(steps=200), Norm.LINF, 1.01),
    (DDN(steps=200), Norm.L2, 1.01),
    (FAB(), Norm.L1, 1.01),
    (FAB(), Norm.L2, 1.01),
    (FAB(), Norm.LINF, 1.01),
    (DeepFool(), Norm.L2, 1.021),
    (DeepFool(), Norm.LINF, 1.021),
    (SuperDeepFool(), Norm.L2, 1.002),
]


@pytest.mark.parametrize(("attack", "norm", "factor"), EXACT, ids=str)
def test_minimal_attacks_find_the_distance_to_a_plane(
    attack: Attack, norm: Norm, factor: float
) -> None:
    model, data, distance = plane(norm)
    sizes = torch.tensor(evaluate(model, attack, Lp(norm), data).sizes, dtype=torch.float64)
    assert len(sizes) == len(data)
    assert bool((sizes >= distance * (1 - 1e-5)).all())
    assert float(sizes.mean() / distance.mean()) <= factor


def test_sigma_zero_counts_nearly_as_few_components_as_suffice() -> None:
    model, data, distance = plane(Norm.L0)
    sizes = evaluate(model, SigmaZero(steps=300), Lp(Norm.L0), data).sizes
    assert len(sizes) == len(data)
    assert min(s - d for s, d in zip(sizes, distance.tolist(), strict=True)) >= 0
    assert np.mean(sizes) <= float(distance.mean()) + 0.5


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
@pytest.mark.parametrize("attack", [APGD(steps=40), APGDT(steps=40), FABT(steps=40)], ids=str)
def test_attacks_at_a_fixed_eps_break_exactly_what_is_nearer(attack: Attack, norm: Norm) -> None:
    model, data, distance = plane(norm)
    eps = float(distance.median())
    outcome = evaluate(model, attack, Lp(norm, eps), data)
    for record, far in zip(outcome.records, distance.tolist(), strict=True):
        if abs(far / eps - 1) > 0.02:
            assert record.robust == (far > eps), (far, eps)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
@pytest.mark.parametrize("seed", range(4))
def test_the_move_onto_a_hyperplane_in_the_box_is_the_shortest(norm: Norm, seed: int) -> None:
    stream = generator(seed)
    x = torch.rand(3, 6, generator=stream, dtype=torch.float64)
    normal = torch.randn(3, 6, generator=stream, dtype=torch.float64)
    room = torch.where(normal > 0, 1 - x, x)
    gap = torch.tensor([0.3, 0.6, 0.9]) * (normal.abs() * room).sum(1)
    moves = onto_hyperplane(x, normal, gap, norm)
    assert torch.allclose((normal * moves).sum(1), gap, rtol=1e-4)
    assert bool(((x + moves >= -1e-9) & (x + moves <= 1 + 1e-9)).all())
    rows = [slice(i, i + 1) for i in range(3)]
    exact = [float(halfspace_distance(x[r], normal[r][0], gap[r], norm)) for r in rows]
    assert flat_norm(moves, norm).tolist() == pytest.approx(exact, rel=1e-4)
    assert torch.allclose(onto_hyperplane(1 - x, normal, -gap, norm), -moves, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_projection_on_ball_and_box_is_the_nearest_point(seed: int) -> None:
    stream = generator(seed)
    x = torch.rand(1, 5, generator=stream, dtype=torch.float64)
    d = torch.randn(1, 5, generator=stream, dtype=torch.float64)
    got = project_l1_box(x, d, 0.5)[0].numpy()
    bounds = list(zip((-x[0]).tolist(), (1 - x[0]).tolist(), strict=True))
    limit = {"type": "ineq", "fun": lambda z: 0.5 - np.abs(z).sum()}
    best = minimize(
        lambda z: ((z - d[0].numpy()) ** 2).sum(),
        got * 0.5,
        bounds=bounds,
        constraints=[limit],
        tol=1e-12,
    )
    assert np.abs(got).sum() <= 0.5 + 1e-9
    assert ((got - d[0].numpy()) ** 2).sum() <= best.fun + 1e-6


def test_apgd_has_the_checkpoints_of_the_paper() -> None:
    (row,) = _spans(Norm.LINF, 100)
    marks = [(turn, span) for turn, span in enumerate(row) if span]
    assert marks[:5] == [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10)]
    assert [turn for turn, _ in marks[5:]] == [87, 93, 99]


def test_apgd_halves_its_step_and_goes_back_where_the_loss_does_not_rise() -> None:
    threat = Lp(Norm.LINF, 0.1)
    x = torch.full((2, 1, 2, 2), 0.5)
    state = begin(threat, x, Rng(torch.arange(2)))
    gradient = torch.ones_like(x)
    first = state.adv
    for turn in range(1, 23):
        rising = torch.tensor([float(turn), -float(turn)])
        state = climb(threat, 100, x, state, rising, gradient)
    assert state.step.tolist() == [2.0, 1.0]
    assert torch.equal(state.best[1], first[1])
    assert torch.equal(state.prev[1], first[1])
    assert not torch.equal(state.prev[0], first[0])


def test_the_targeted_ratio_is_the_papers() -> None:
    logits = torch.tensor([[4.0, 3.0, 1.0, 0.0, -1.0]])
    value = ratio_towards(logits, torch.tensor([2]), torch.tensor([0]))
    assert float(value) == pytest.approx(-(4.0 - 1.0) / (4.0 - (1.0 + 0.0) / 2))
    few = ratio_towards(logits[:, :3], torch.tensor([2]), torch.tensor([0]))
    assert float(few) == -3.0


class Decoy(Linear):
    """Class 1 is always the second best and never wins; class 2 can."""

    def forward(self, x: Tensor) -> Tensor:
        along = (x.flatten(1) - 0.5).sum(1)
        zero = torch.zeros_like(along)
        return torch.stack([zero + 1, zero + 0.9 - 0 * along, 4 * along - 2], 1)


@pytest.mark.parametrize("attack", [APGDT(steps=40, targets=2), FABT(steps=40, targets=2)], ids=str)
def test_classes_beyond_the_first_target_are_tried(attack: Attack) -> None:
    x = torch.full((4, 1, 3, 3), 0.5)
    data = Dataset(x, torch.zeros(4, dtype=torch.long))
    model, threat = Decoy(signed_weights(3, 9, 0)), Lp(Norm.LINF, 0.2)
    assert evaluate(model, replace(attack, targets=1), threat, data).robust_accuracy == 1.0
    assert evaluate(model, attack, threat, data).robust_accuracy == 0.0


def test_malt_puts_the_class_with_the_nearest_border_first() -> None:
    x = torch.full((4, 1, 3, 3), 0.5)
    data = Dataset(x, torch.zeros(4, dtype=torch.long))
    model, threat = Decoy(signed_weights(3, 9, 0)), Lp(Norm.LINF, 0.2)
    near = APGDT(steps=20, targets=1, order=Order.MALT)
    assert evaluate(model, near, threat, data).robust_accuracy == 0.0


def test_autoattack_is_made_to_the_letter() -> None:
    assert STANDARD.stages() == (
        APGD(steps=100),
        APGDT(steps=900, targets=9),
        FABT(steps=900, targets=9),
        Square(steps=5000, p_init=0.8),
    )
    assert [type(a).__name__ for a in RAND.stages()] == ["APGD", "APGD"]
    kinds = [type(a).__name__ for a in PLUS.stages()]
    assert kinds == ["APGD"] * 10 + ["FAB"] * 5 + ["Square", "APGDT", "FABT"]
    assert not STANDARD.supports(Lp(Norm.L1, 1.0))


def asked(model: torch.nn.Module, attack: Attack, threat: Lp, x: Tensor) -> Tensor:
    recorder = Recorder(model, keep=True)
    evaluate(recorder, attack, threat, Dataset(x, torch.zeros(len(x), dtype=torch.long)))
    return torch.cat(recorder.seen)


class Never(Linear):
    """Class 0, with a margin that depends on the image."""

    def forward(self, x: Tensor) -> Tensor:
        along = x.flatten(1).square().sum(1)
        return torch.stack([along * 0, -100 - along], 1)


def test_square_reaches_every_row_and_column_and_both_signs() -> None:
    x = torch.full((1, 1, 9, 5), 0.5)
    seen = asked(Never(signed_weights(1, 1, 0)), Square(steps=400), Lp(Norm.LINF, 0.1), x)
    up, down = (seen > 0.55).any(0)[0], (seen < 0.45).any(0)[0]
    assert bool(up.all())
    assert bool(down.all())
    start = seen[2]  # after the clean pass and the look for randomness
    assert bool((start == start[:, :1]).all())  # vertical stripes
    changed = [(b != a).flatten().sum() for a, b in zip(seen[-40:-1], seen[-39:], strict=True)]
    assert max(changed) <= 2


def test_square_sides_follow_the_schedule() -> None:
    x = torch.zeros(1, 1, 32, 32)
    turns = [0, 5, 6, 30, 150, 4500]
    sides = [int(Square(steps=5000)._side(x, torch.tensor([t]))) for t in turns]
    assert sides == [29, 29, 20, 14, 10, 1]
    shares = [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 512]
    assert sides == [max(1, round((s * 1024) ** 0.5)) for s in shares]


def test_two_samples_get_squares_of_their_own() -> None:
    x = torch.full((2, 1, 8, 8), 0.5)
    x[1, 0, 0, 0] = 0.4
    recorder = Recorder(Never(signed_weights(1, 1, 0)), keep=True)
    data = Dataset(x, torch.zeros(2, dtype=torch.long))
    evaluate(recorder, Square(steps=30), Lp(Norm.LINF, 0.1), data)
    pairs = [s for s in recorder.seen[2:] if len(s) == 2]
    assert any(not torch.equal((p[0] > 0.5)[:, 1:], (p[1] > 0.5)[:, 1:]) for p in pairs)


def test_a_zero_gradient_adds_nothing_to_the_momentum() -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0] = 1e-30
    unit = unit_l1(gradient)
    assert flat_norm(unit, Norm.L1).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (RayS(steps=400), Norm.LINF),
        (Boundary(steps=2000), Norm.L2),
        (HopSkipJump(steps=300), Norm.L2),
    ],
    ids=str,
)
def test_labels_are_enough_to_come_near_the_exact_distance(attack: Attack, norm: Norm) -> None:
    model, data, distance = plane(norm, 6)
    labels_only = Classifier(DecisionsOnly(model), access=Access.DECISIONS)
    sizes = torch.tensor(evaluate(labels_only, attack, Lp(norm), data).sizes, dtype=torch.float64)
    assert len(sizes) == len(data)
    assert bool((sizes >= distance * (1 - 1e-5)).all())
    assert float(sizes.mean() / distance.mean()) <= 1.25


@pytest.mark.parametrize("attack", [Boundary(steps=200), HopSkipJump(steps=60)], ids=str)
def test_a_targeted_attack_on_labels_starts_from_examples(attack: Attack) -> None:
    data, model = load_data("digits").take(range(6)), load_model("digits-cnn")
    goal = Targeted(Choice.NEXT)
    with pytest.raises(UnsupportedError, match="--set examples="):
        evaluate(model, attack, Lp(Norm.L2), data, goal=goal)
    outcome = evaluate(model, replace(attack, examples="digits"), Lp(Norm.L2), data, goal=goal)
    assert len(outcome.sizes) == sum(r.correct for r in outcome.records)
    first = float((load_data("digits").x[:1] - data.x).flatten(1).norm(dim=1).max())
    assert max(outcome.sizes) < first


def test_rays_cannot_reach_for_a_class() -> None:
    model, data, _ = plane(Norm.LINF, 3)
    with pytest.raises(UnsupportedError, match="no targeted form"):
        evaluate(model, RayS(), Lp(Norm.LINF), data, goal=Targeted(Choice.NEXT))


def test_asking_about_some_slots_charges_them_only() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.01, 0.02, 0.03))
    x, y = problem.data.x, problem.data.y
    oracle = Oracle(Passes(Classifier(problem.model)), Lp(Norm.LINF, 0.1), x, y, 2)
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        expected = problem.model(x[rows].flip(0)).argmax(1) != y[rows]
    assert torch.equal(oracle.fools_of(rows, x[rows].flip(0)), expected)
    assert oracle.ledger.queries.tolist() == [1, 0, 1]
    assert isinstance(oracle.ledger, Ledger)


@pytest.mark.parametrize("model", ["digits-cnn", "digits-cnn-at"])
def test_nobody_loses_to_noise(model: str) -> None:
    data, threat = load_data("digits").take(range(120)), Lp(Norm.LINF, 0.25)
    outcome = evaluate(load_model(model), Noise(steps=50), threat, data)
    noise = outcome.robust_accuracy
    assert noise < outcome.clean_accuracy
    for attack in (PGD(steps=10), APGD(steps=10), Square(steps=200)):
        assert evaluate(load_model(model), attack, threat, data).robust_accuracy <= noise


class Rare(Linear):
    """Another class only where the first component is low: few random images are."""

    def forward(self, x: Tensor) -> Tensor:
        low = 0.05 - x.flatten(1)[:, 0]
        return torch.stack([-low, low], 1)


@pytest.mark.parametrize("attack", [Boundary(steps=120), HopSkipJump(steps=120)], ids=str)
def test_who_still_looks_for_a_start_does_not_change_the_others(attack: Attack) -> None:
    x = 0.6 + 0.3 * torch.rand(12, 1, 3, 3, generator=generator(8))
    data = Dataset(x, torch.zeros(12, dtype=torch.long))
    model = Rare(signed_weights(2, 9, 0))
    together = evaluate(model, attack, Lp(Norm.L2), data, exact=True)
    alone = [evaluate(model, attack, Lp(Norm.L2), data.take([i]), exact=True) for i in range(12)]
    assert together.records == tuple(o.records[0] for o in alone)
