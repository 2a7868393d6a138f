"""Random numbers: their distributions, and that they are a sample's own."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from robustbench_lite import Rng
from robustbench_lite.rng import key_of

GOLDEN = 0x9E3779B97F4A7C15


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
    monkeypatch.setattr(rng, "_bits", lambda shape, whole=True: torch.full((1, *shape), bits))
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


def test_a_branch_moves_no_draw_of_the_stream_and_has_numbers_of_its_own() -> None:
    plain, branched = Rng(keys(2000)), Rng(keys(2000))
    first = plain.uniform(3)
    twigs = [branched.branch(number).uniform(3) for number in (0, 1)]
    assert torch.equal(branched.uniform(3), first)
    assert torch.equal(branched.branch(1).uniform(3), twigs[1])
    assert torch.equal(Rng(keys(2000)[5:7]).branch(0).uniform(3), twigs[0][5:7])
    streams = torch.stack([first, *twigs]).flatten(1)
    assert stats.kstest(twigs[0].flatten().numpy(), "uniform").pvalue > 1e-3
    assert (torch.corrcoef(streams) - torch.eye(3)).abs().max() < 0.05


def test_numbers_are_those_of_splitmix64_in_whole_numbers() -> None:
    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def bits(key: int, step: int, draw: int, element: int) -> int:
        base = mixed((mixed((key + GOLDEN) % 2**64) + (step + 1) * GOLDEN) % 2**64)
        return mixed((mixed((base + draw * GOLDEN) % 2**64) + element * GOLDEN) % 2**64)

    rng = Rng(torch.tensor([5, -7]), torch.tensor([0, 3]))
    places = [(5, 0), (-7, 3)]
    drawn = rng.uniform(4), rng.signs(4), rng.integers(1000, 4)
    for number, (uniform, sign, whole) in enumerate(zip(*drawn, strict=True)):
        for i in range(4):
            words = [bits(*places[number], draw, i) for draw in (1, 2, 3)]
            assert float(uniform[i]) == ((words[0] >> 41) + 0.5) * 2.0**-23
            assert float(sign[i]) == 2 * (words[1] >> 63) - 1
            assert int(whole[i]) == (words[2] >> 32) * 1000 >> 32
