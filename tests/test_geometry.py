"""Projections, random points and the edges of a threat."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import linprog
from torch import Tensor

from robustbench_lite import Lp, Norm, Rng
from robustbench_lite.geometry import fill_l1, in_box
from robustbench_lite.structured import Patch, Spatial
from robustbench_lite.testing.models import generator as stream
from robustbench_lite.threat import Threat, measured

NORMS = st.sampled_from([Norm.L0, Norm.L1, Norm.L2, Norm.LINF])
SEEDS = st.integers(0, 2**31 - 1)


def draw(seed: int, columns: int, spread: float) -> tuple[Tensor, Tensor]:
    generator = stream(seed)
    x = torch.rand(6, 1, 1, columns, generator=generator)
    d = spread * torch.randn(6, 1, 1, columns, generator=generator)
    d[0] = 0
    x[1] = x[1].round()
    return x, x + d


def norm_of(d: Tensor, norm: Norm) -> Tensor:
    order = {Norm.L0: 0.0, Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}[norm]
    size: Tensor = torch.linalg.vector_norm(d.double().flatten(1), order, dim=1)
    return size


@settings(max_examples=150, deadline=None)
@given(NORMS, SEEDS, st.integers(1, 40), st.floats(0.01, 3.0), st.floats(0.0, 5.0))
@example(norm=Norm.L1, seed=150, columns=1, spread=2.0, eps=0.01)  # rounded by 3e-7
def test_a_projection_is_in_the_ball_and_the_box(
    norm: Norm, seed: int, columns: int, spread: float, eps: float
) -> None:
    x, adv = draw(seed, columns, spread)
    threat = Lp(norm, eps)
    once = threat.project(x, adv)
    assert bool(((once >= 0) & (once <= 1)).all())
    assert bool((norm_of(once.double() - x.double(), norm) <= eps * (1 + 1e-5) + 1e-6).all())
    if eps == 0 or eps >= 1e-3:  # below, the rounding of x + d itself is larger than the slack
        assert bool(threat.contains(x, once).all())
    assert torch.allclose(threat.project(x, once), once, atol=1e-5)
    inside = (norm_of(adv - x, norm) <= eps) & ((adv >= 0) & (adv <= 1)).flatten(1).all(1)
    assert torch.allclose(once[inside], adv[inside], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Norm.L1, Norm.L2, Norm.LINF]), SEEDS, st.integers(2, 20), st.floats(0.01, 0.2)
)
def test_without_the_box_a_projection_is_the_closest_point(
    norm: Norm, seed: int, columns: int, eps: float
) -> None:
    x, adv = draw(seed, columns, 0.05)
    x = torch.full_like(x, 0.5)
    adv = (0.5 + (adv - adv.mean()).clamp(-0.25, 0.25)).clamp(0.25, 0.75)
    nearest = Lp(norm, eps).project(x, adv)
    # Closest point of a convex set: no point of the set lies on the far side of (adv - nearest).
    away = (adv - nearest).double().flatten(1)
    corners = Lp(norm, eps).random_point(
        x.repeat(50, 1, 1, 1), Rng(torch.arange(50 * len(x), dtype=torch.int64) + seed)
    )
    toward = (corners - nearest.repeat(50, 1, 1, 1)).double().flatten(1)
    assert float((away.repeat(50, 1) * toward).sum(1).max()) <= 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_filling_up_gains_as_much_as_a_linear_program(seed: int) -> None:
    adv = torch.rand(1, 6, generator=stream(seed), dtype=torch.float64)
    slope = torch.randn(1, 6, generator=stream(seed + 9), dtype=torch.float64)
    move = fill_l1(slope, adv, 0.8)
    room = torch.where(slope > 0, 1 - adv, adv)[0].tolist()
    gain = slope.abs()[0].numpy()
    best = -linprog(-gain, A_ub=[[1.0] * 6], b_ub=[0.8], bounds=[(0, r) for r in room]).fun
    assert float((slope * move).sum()) == pytest.approx(best)
    assert float(move.abs().sum()) <= 0.8 + 1e-9
    assert bool(((adv + move >= 0) & (adv + move <= 1)).all())


def test_closed_form_projections() -> None:
    x = torch.full((1, 1, 1, 3), 0.5)
    adv = x + torch.tensor([0.3, -0.4, 0.0])
    expected = {
        Lp(Norm.L2, 0.25): [0.15, -0.2, 0.0],
        Lp(Norm.LINF, 0.1): [0.1, -0.1, 0.0],
        Lp(Norm.L1, 0.5): [0.2, -0.3, 0.0],
        Lp(Norm.L0, 1): [0.0, -0.4, 0.0],
    }
    for threat, d in expected.items():
        got = (threat.project(x, adv) - x).flatten()
        assert torch.allclose(got, torch.tensor(d), atol=1e-6), str(threat)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("columns", [1, 2, 30])
def test_random_points_are_in_the_threat(norm: Norm, columns: int) -> None:
    x = torch.rand(500, 1, 1, columns, generator=stream(1))
    for eps in (0.0, 0.05, 1.0):
        threat = Lp(norm, eps)
        point = threat.random_point(x, Rng(torch.arange(500)))
        assert bool(threat.contains(x, point).all()), f"{norm} {eps}"
        moved = eps > 0 and not (norm is Norm.L0 and eps < 1)
        assert bool((point != x).flatten(1).any(1).all()) == moved


@pytest.mark.parametrize("columns", [1, 2, 10])
def test_random_points_are_uniform_in_the_l2_ball(columns: int) -> None:
    x = torch.full((20_000, 1, 1, columns), 0.5)
    d = Lp(Norm.L2, 0.4).random_point(x, Rng(torch.arange(len(x)))) - x
    radius = norm_of(d, Norm.L2) / 0.4
    assert stats.kstest(radius.numpy() ** columns, "uniform").pvalue > 1e-3
    assert float(d.mean(0).abs().max()) < 0.01
    signs = (d.flatten(1) > 0).double().mean(0)
    assert bool(((signs - 0.5).abs() < 0.02).all())


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_random_points_are_uniform_in_the_l1_ball(columns: int) -> None:
    x = torch.full((20_000, 1, 1, columns), 0.5)
    d = Lp(Norm.L1, 0.4).random_point(x, Rng(torch.arange(len(x)))) - x
    radius = norm_of(d, Norm.L1) / 0.4
    assert stats.kstest(radius.numpy() ** columns, "uniform").pvalue > 1e-3


def test_random_points_are_uniform_in_the_linf_ball() -> None:
    x = torch.full((20_000, 1, 1, 2), 0.5)
    d = Lp(Norm.LINF, 0.4).random_point(x, Rng(torch.arange(len(x)))) - x
    assert stats.kstest(d.flatten().numpy() / 0.8 + 0.5, "uniform").pvalue > 1e-3


def test_contains_allows_rounding_and_no_more() -> None:
    x = torch.full((1, 1, 1, 4), 0.5, dtype=torch.float64)
    for norm, step in ((Norm.LINF, 0.1), (Norm.L2, 0.05), (Norm.L1, 0.025)):
        threat = Lp(norm, 0.1)
        assert bool(threat.contains(x, x + step * (1 + 9e-6)))
        assert not bool(threat.contains(x, x + step * (1 + 2e-5)))
    one = x.clone()
    one[..., 0] += 1e-30
    one[..., 1] += 1e-3
    assert bool(Lp(Norm.L0, 1).contains(x, one))
    one[..., 2] += 1e-3
    assert not bool(Lp(Norm.L0, 1).contains(x, one))


def test_contains_keeps_to_the_box_and_to_eps_zero_exactly() -> None:
    x = torch.zeros(1, 1, 1, 1)
    assert bool(Lp(Norm.LINF, 0.0).contains(x, x))
    assert not bool(Lp(Norm.LINF, 0.0).contains(x, x + 1e-30))
    assert not bool(Lp(Norm.LINF, 0.5).contains(x, x - 1e-9))
    assert not bool(Lp(Norm.LINF, 0.5).contains(x + 1, x + 1 + 1e-6))
    assert not bool(Lp(Norm.LINF, 0.5).contains(x, x + torch.nan))
    assert bool(Lp(Norm.L2).contains(x, x + 1))


def test_only_what_lies_in_the_box_is_in_it() -> None:
    nan, inf = math.nan, math.inf
    rows = torch.tensor([[0, 1], [0.5, nan], [nan, 2], [-1e-9, 0], [0, 1 + 1e-6], [inf, 0], [1, 0]])
    assert in_box(rows.reshape(7, 1, 1, 2)).tolist() == [True, *[False] * 5, True]


@pytest.mark.parametrize("threat", [Lp(norm, 0.3) for norm in Norm] + [Spatial(), Patch(0.2)])
def test_measuring_at_once_is_measuring_one_by_one(threat: Threat) -> None:
    x, _ = draw(1, 48, 0.0)
    x = x.reshape(6, 3, 4, 4)
    near = [0.0, 0.001, 0.05, 0.2, 0.5, 3.0]
    origin = threat.origin(x)
    moves = torch.randn(origin.shape, generator=stream(3))
    moves[:, ..., 1:] *= 0 if isinstance(threat, Patch) else 1
    adv = origin + torch.tensor(near).reshape(6, *[1] * (origin.ndim - 1)) * moves
    adv[1] = adv[1].clamp(0, 1)
    size, inside = measured(threat, x, adv)
    assert torch.equal(size, threat.size(x, adv))
    assert torch.equal(inside, threat.contains(x, adv))
    assert 0 < int(inside.sum()) < 6
    wide = adv.double()
    before = wide.clone()
    threat.size(x, wide)
    assert torch.equal(wide, before)  # what is measured in place is a copy


def test_what_a_threat_made_of_a_ball_forbids_is_not_allowed_by_measuring_at_once() -> None:
    class Brighter(Lp):
        def contains(self, x: Tensor, adv: Tensor) -> Tensor:
            return super().contains(x, adv) & (adv >= x).flatten(1).all(1)

    x = torch.full((2, 1, 2, 2), 0.5)
    adv = x + torch.tensor([0.1, -0.1]).reshape(2, 1, 1, 1)
    assert measured(Lp(Norm.LINF, 0.2), x, adv)[1].tolist() == [True, True]
    assert measured(Brighter(Norm.LINF, 0.2), x, adv)[1].tolist() == [True, False]
