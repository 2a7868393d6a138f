"""Exact answers: linear and piecewise-linear models whose distances are known in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from robustbench_lite import Dataset, Lp, Norm, Outcome, Rng, evaluate, load_attack
from robustbench_lite.rng import key_of

SIDE = 5
COMPONENTS = 2 * SIDE * SIDE
DUAL = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf}
EPS = {Norm.LINF: 0.03, Norm.L2: 0.15, Norm.L1: 0.4}
N = 120


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plane(nn.Module):
    """Two classes on either side of a plane."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        z = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([-z, z], 1)


class Slab(Plane):
    """Class 1 farther than `half` from a plane, on either side: |z| - half, piecewise linear."""

    def __init__(self, weight: Tensor, half: float) -> None:
        super().__init__(weight)
        self.half = half

    def forward(self, x: Tensor) -> Tensor:
        z = ((x.flatten(1) - 0.5) @ self.weight).abs() - self.half
        return torch.stack([-z, z], 1)


def weights(seed: int) -> Tensor:
    return torch.randn(COMPONENTS, generator=stream(seed))


def spread_images(weight: Tensor, values: Tensor, seed: int) -> Tensor:
    """Images of which the plane's value is `values`, far from the box."""
    x = 0.1 * (torch.rand(len(values), COMPONENTS, generator=stream(seed)) - 0.5)
    x = x + ((values - x @ weight) / weight.square().sum())[:, None] * weight
    assert float(x.abs().max()) < 0.3
    return (0.5 + x).reshape(-1, 2, SIDE, SIDE)


def distances(data: Dataset, weight: Tensor, norm: Norm, half: float = 0.0) -> Tensor:
    value = (data.x.double().flatten(1) - 0.5) @ weight.double()
    return (value.abs() - half).abs() / torch.linalg.vector_norm(weight.double(), DUAL[norm])


def broken(outcome: Outcome) -> Tensor:
    return torch.tensor([r.correct and not r.robust for r in outcome.records])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm", DUAL)
def test_pgd_breaks_exactly_what_is_nearer_than_eps(norm: Norm, seed: int) -> None:
    weight = weights(seed)
    eps = EPS[norm]
    scale = eps * float(torch.linalg.vector_norm(weight, DUAL[norm]))
    values = scale * 2 * (2 * torch.rand(N, generator=stream(seed + 10)) - 1)
    data = Dataset(spread_images(weight, values, seed + 20), (values > 0).long())
    outcome = evaluate(Plane(weight), load_attack("pgd", steps=80), Lp(norm, eps), data)
    assert outcome.clean_accuracy == 1.0
    far = distances(data, weight, norm) / eps
    decided = (far - 1).abs() > 0.01
    assert torch.equal(broken(outcome)[decided], (far < 1)[decided])
    assert 0.3 < outcome.robust_accuracy < 0.7


@pytest.mark.parametrize("norm", DUAL)
def test_fgsm_is_exact_where_one_step_is_enough(norm: Norm) -> None:
    # In L1 its move is shared by the largest hundredth of the components: here that is one.
    weight = weights(2)
    eps = EPS[norm]
    scale = eps * float(torch.linalg.vector_norm(weight, DUAL[norm]))
    values = scale * 2 * (2 * torch.rand(N, generator=stream(3)) - 1)
    data = Dataset(spread_images(weight, values, 4), (values > 0).long())
    outcome = evaluate(Plane(weight), load_attack("fgsm"), Lp(norm, eps), data)
    far = distances(data, weight, norm) / eps
    decided = (far - 1).abs() > 0.01
    assert torch.equal(broken(outcome)[decided], (far < 1)[decided])


def test_cw_finds_the_distance_to_a_plane() -> None:
    weight = weights(5)
    values = float(weight.norm()) * (0.02 + 0.4 * torch.rand(40, generator=stream(6)))
    values = values * torch.tensor([1.0, -1.0]).repeat(20)
    data = Dataset(spread_images(weight, values, 7), (values > 0).long())
    outcome = evaluate(Plane(weight), load_attack("cw"), Lp(Norm.L2), data)
    assert_sizes(outcome, distances(data, weight, Norm.L2))


def test_cw_finds_the_nearer_of_two_planes() -> None:
    weight = weights(8)
    half = 0.3 * float(weight.norm())
    values = half * (1.8 * torch.rand(40, generator=stream(9)) - 0.9)
    data = Dataset(spread_images(weight, values, 11), torch.zeros(40, dtype=torch.long))
    outcome = evaluate(Slab(weight, half), load_attack("cw"), Lp(Norm.L2), data)
    assert_sizes(outcome, distances(data, weight, Norm.L2, half))


@pytest.mark.parametrize("norm", DUAL)
def test_pgd_on_a_slab_breaks_exactly_what_is_near_a_plane(norm: Norm) -> None:
    # eps is less than the slab's half width, so a random start never sees the wrong slope.
    weight = weights(12)
    dual = float(torch.linalg.vector_norm(weight, DUAL[norm]))
    eps = EPS[norm]
    half = 2.5 * eps * dual
    signs = torch.tensor([1.0, -1.0]).repeat(N // 2)
    depth = eps * dual * 1.4 * torch.rand(N, generator=stream(13))
    values = signs * (half - depth)
    data = Dataset(spread_images(weight, values, 14), torch.zeros(N, dtype=torch.long))
    outcome = evaluate(Slab(weight, half), load_attack("pgd", steps=80), Lp(norm, eps), data)
    assert outcome.clean_accuracy == 1.0
    far = distances(data, weight, norm, half) / eps
    decided = (far - 1).abs() > 0.01
    assert torch.equal(broken(outcome)[decided], (far < 1)[decided])
    assert 0.1 < outcome.robust_accuracy < 0.5


def assert_sizes(outcome: Outcome, exact: Tensor) -> None:
    found = torch.tensor([math.inf if r.size is None else r.size for r in outcome.records])
    assert outcome.clean_accuracy == 1.0
    assert bool((found >= exact - 1e-5).all())
    assert bool((found <= 1.02 * exact).all()), float((found / exact).max())
    assert float(found.mean()) <= 1.02 * float(exact.mean())


# --- the geometry ---

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


# --- random numbers ---


def keys(n: int) -> Tensor:
    return torch.tensor([key_of("sample", i) for i in range(n)])


def test_random_numbers_are_uniform_between_0_and_1() -> None:
    u = Rng(keys(2000)).uniform(50)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(Rng(keys(50_000)).uniform().numpy(), "uniform").pvalue > 1e-3
    consecutive = Rng(torch.arange(50_000)).uniform().numpy()
    assert stats.kstest(consecutive, "uniform").pvalue > 1e-3
    assert abs(float(torch.corrcoef(u.T[:2])[0, 1])) < 0.1


@pytest.mark.parametrize("bits", [0, -1, 2**63 - 1, -(2**63)])
def test_the_ends_0_and_1_are_never_drawn(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Rng(keys(1))
    monkeypatch.setattr(rng, "_bits", lambda shape: torch.full((1, *shape), bits))
    assert 0 < float(rng.uniform()) < 1
    assert math.isfinite(float(rng.normal()))
    assert 0 < float(rng.exponential()) < math.inf
    assert 0 <= int(rng.integers(10)) < 10


def test_the_other_distributions_have_their_moments() -> None:
    rng = Rng(keys(2000))
    assert stats.kstest(rng.normal(50).flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(rng.exponential(50).flatten().numpy(), "expon").pvalue > 1e-3
    signs = rng.signs(50)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.02
    whole = rng.integers(7, 50)
    counts = torch.bincount(whole.flatten(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_sample_has_its_own_numbers_whoever_is_beside_it() -> None:
    every, some = keys(40), torch.tensor([7, 3, 31])
    steps = torch.arange(40)
    together = Rng(every, steps)
    apart = Rng(every[some], steps[some])
    for _ in range(3):
        assert torch.equal(together.normal(3, 2)[some], apart.normal(3, 2))


def test_steps_draws_and_keys_give_other_numbers() -> None:
    key = keys(1)
    rng = Rng(key)
    numbers = [rng.uniform(20), rng.uniform(20)]
    numbers += [Rng(key, torch.tensor([step])).uniform(20) for step in (1, 2, 1000)]
    numbers += [Rng(key + 1).uniform(20), Rng(key - 1).uniform(20)]
    flat = torch.cat(numbers).flatten()
    assert len(flat.unique()) == len(flat)
    assert key_of(1, 2) != key_of(12)
    assert key_of("1") != key_of(1)
    assert key_of("a", "b") != key_of("ab")
