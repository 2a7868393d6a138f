"""Exact answers: linear and piecewise-linear models whose distances are known in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Dataset, Lp, Norm, Outcome, evaluate, load_attack

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


@pytest.mark.parametrize("far", [0.003, 0.03, 0.3])
def test_one_search_of_cw_is_enough_at_any_distance(far: float) -> None:
    weight = weights(15)
    values = far * float(weight.norm()) * (1 + 0.2 * torch.rand(20, generator=stream(16)))
    data = Dataset(spread_images(weight, values, 17), torch.ones(20, dtype=torch.long))
    attack = load_attack("cw", steps=100, searches=1)
    assert_sizes(
        evaluate(Plane(weight), attack, Lp(Norm.L2), data), distances(data, weight, Norm.L2)
    )


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
