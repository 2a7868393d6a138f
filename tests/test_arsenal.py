"""What tells each attack from a lesser one, with exact answers where there are any."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from rbl_attacks.apgd import APGD, _spans, begin, climb
from rbl_attacks.apgd_t import APGDT, Order, ratio_towards
from rbl_attacks.autoattack import PLUS, RAND, STANDARD
from rbl_attacks.ddn import DDN
from rbl_attacks.deepfool import DeepFool
from rbl_attacks.fab import FAB, FABT
from rbl_attacks.fab_u import FABU
from rbl_attacks.fmn import FMN
from rbl_attacks.hyperplane import onto_hyperplane
from rbl_attacks.sigma_zero import SigmaZero
from rbl_attacks.square import Square
from rbl_attacks.superdeepfool import SuperDeepFool
from scipy.optimize import minimize
from torch import Tensor, nn

from robustbench_lite import (
    Attack,
    Dataset,
    Lp,
    Norm,
    Rng,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.geometry import flat_norm, project_l1_box
from robustbench_lite.loss import Loss
from robustbench_lite.testing.exactness import Faces, halfspace_distance
from robustbench_lite.testing.models import (
    Linear,
    generator,
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
    (FABU(), Norm.L1, 1.01),
    (FABU(), Norm.L2, 1.01),
    (FABU(), Norm.LINF, 1.01),
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
    ((row,), (short,)) = _spans(Norm.LINF, (100, 10))
    marks = [(turn, span) for turn, span in enumerate(row) if span]
    assert marks[:5] == [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10)]
    assert [turn for turn, _ in marks[5:]] == [87, 93, 99]
    assert [(turn, span) for turn, span in enumerate(short) if span][:3] == [(2, 2), (3, 1), (4, 1)]
    assert len(short) == len(row)


def test_apgd_halves_its_step_and_goes_back_where_the_loss_does_not_rise() -> None:
    threat = Lp(Norm.LINF, 0.1)
    x = torch.full((2, 1, 2, 2), 0.5)
    state = begin(threat, x, Rng(torch.arange(2)))
    gradient = torch.ones_like(x)
    first = state.adv
    for turn in range(1, 23):
        rising = torch.tensor([float(turn), -float(turn)])
        state = climb(threat, (100,), x, state, rising, gradient)
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
    ball = Lp(Norm.LINF, 0.1)
    assert STANDARD.attacks(ball) == (
        APGD(steps=100),
        APGDT(steps=900, targets=9),
        FABT(steps=900, targets=9),
        Square(steps=5000, p_init=0.8, horizon=10000),
    )
    x = torch.zeros(1, 1, 32, 32)
    turns = torch.tensor([10, 11, 51, 201, 501, 1001, 2001, 4001])
    halved = [round((1024 * 0.8 / 2**i) ** 0.5) for i in range(8)]
    assert [int(STANDARD.attacks(ball)[3]._side(x, turn)) for turn in turns[:, None]] == halved
    assert RAND.attacks(ball) == (APGD(steps=100), APGD(steps=100, loss=Loss.DLR))
    kinds = [type(a).__name__ for a in PLUS.attacks(ball)]
    assert kinds == ["APGD"] * 10 + ["FABU"] * 5 + ["Square", "APGDT", "FABT"]
    assert not STANDARD.supports(Lp(Norm.L1, 1.0))


@pytest.mark.parametrize("norm", [Norm.L2, Norm.LINF])
def test_deepfool_looks_back_with_forward_passes_only(norm: Norm) -> None:
    model, data, exact = plane(norm)
    outcome = evaluate(model, DeepFool(), Lp(norm), data)
    sizes = torch.tensor(outcome.sizes, dtype=torch.float64)
    easy = torch.tensor([record.backwards for record in outcome.records]) == 1
    assert int(easy.sum()) >= 12, "on a plane one move crosses, unless the box is in the way"
    ratio = sizes[easy] / exact[easy]
    assert float(ratio.min()) >= 1 - 1e-6
    assert float(ratio.max()) <= 1.003, "the overshoot of 0.02 is taken back"


def test_superdeepfool_needs_one_gradient_a_move_and_comes_to_rest() -> None:
    model, data, exact = plane(Norm.L2, faces=4)
    outcome = evaluate(model, SuperDeepFool(steps=10_000), Lp(Norm.L2), data)
    assert max(record.backwards for record in outcome.records) < 100
    long = evaluate(model, SuperDeepFool(steps=300, patience=300), Lp(Norm.L2), data)
    assert sum(outcome.sizes) <= 1.02 * sum(long.sizes)
    assert (torch.tensor(outcome.sizes) / exact).min() >= 1 - 1e-6


def test_superdeepfool_turns_by_a_part_to_get_nearer() -> None:
    model, data = load_model("digits-cnn-at"), load_data("digits").take(range(150))
    plain, turning = (
        evaluate(model, SuperDeepFool(inertia=inertia), Lp(Norm.L2), data).sizes
        for inertia in (0.0, 3.0)
    )
    assert len(plain) == len(turning)
    assert sum(turning) < 0.985 * sum(plain)


@pytest.mark.parametrize(("name", "norm"), [("cw", Norm.L2), ("ead", Norm.L1)])
def test_a_search_for_c_ends_when_it_no_longer_shrinks_the_example(name: str, norm: Norm) -> None:
    model, data = load_model("digits-cnn-at"), load_data("digits").take(range(40))
    short, long = (
        evaluate(model, load_attack(name, **fields), Lp(norm), data)
        for fields in ({}, {"patience": 9})
    )
    assert short.queries_per_sample < 0.9 * long.queries_per_sample
    assert len(short.sizes) == len(long.sizes)
    assert sum(short.sizes) < 1.02 * sum(long.sizes)


class Watched(nn.Module):
    """Class 1 where the mean pixel is above 0.6; notes what it is asked, and if for a gradient.

    The mean itself bends, so that a linearisation is exact at no distance.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bool, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.isfinite().all()  # which cannot be traced, so nobody makes a copy
        self.asked.append((x.requires_grad, x.detach().clone()))
        lead = x.flatten(1).mean(1) ** 2 - 0.36
        return torch.stack([-lead, lead], 1)


def test_fab_t_asks_for_the_gradient_where_the_walk_goes_on_after_an_example() -> None:
    model, data = Watched(), Dataset(torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    evaluate(model, FABT(steps=6, targets=1), Lp(Norm.LINF, 0.09), data)
    pairs = [
        (before, after)
        for (plain, before), (follows, after) in pairwise(model.asked)
        if not plain and follows and float(before.mean()) > 0.6
    ]
    assert len(pairs) > 2
    for example, after in pairs:
        assert torch.allclose(after, 0.5 + 0.9 * (example - 0.5), atol=1e-6)
