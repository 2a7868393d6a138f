"""Classes that drop out by successive halving: who goes on, for how long, and what that finds."""

import pytest
import torch
from rbl_attacks.apgd_t import APGDT, Chase
from torch import Tensor, nn

from robustbench_lite import Dataset, Lp, Norm, Rng, evaluate
from robustbench_lite.classifier import Classifier
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.exactness import halfspace_distance
from robustbench_lite.testing.models import generator, signed_weights


class Fan(nn.Module):
    """The logits of class 1 and on are `weight` x - `offset`, that of class 0 is zero."""

    def __init__(self, weight: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(weight), nn.Parameter(offset)

    def forward(self, x: Tensor) -> Tensor:
        rest = x.flatten(1) @ self.weight.T - self.offset
        return torch.cat([torch.zeros_like(rest[:, :1]), rest], 1)


def fan(norm: Norm, n: int) -> tuple[Fan, Dataset, Tensor]:
    """Images of class 0, and the exact distances (N, 9) to where the other classes win over it."""
    weight = signed_weights(9, 36, 5)
    x = 0.3 + 0.4 * torch.rand(n, 36, generator=generator(6))
    offset = (x @ weight.T).amax(0) + 0.1
    gaps = offset - x @ weight.T
    each = [halfspace_distance(x, weight[f], gaps[:, f], norm) for f in range(9)]
    data = Dataset(x.reshape(-1, 1, 6, 6), torch.zeros(n, dtype=torch.long))
    return Fan(weight, offset), data, torch.stack(each, 1)


def run_through(attack: APGDT, oracle: Oracle[Lp]) -> tuple[Chase, list[int]]:
    """Where it ends, and at which steps it turned to another class."""
    keys = torch.arange(len(oracle.y))
    state, begun = attack.start(oracle, oracle.x, oracle.y, Rng(keys)), []
    for step in range(1, attack.steps + 1):
        before, rng = state.index, Rng(keys, torch.full_like(keys, step))
        state = attack.step(oracle, oracle.x, oracle.y, rng, state)
        begun += [step] if bool((state.index > before).any()) else []
    return state, begun


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
def test_every_round_has_an_equal_share_of_the_steps(norm: Norm) -> None:
    model, data, distances = fan(norm, 3)
    threat = Lp(norm, float(distances.min()) / 10)
    oracle = Oracle(Passes(Classifier(model)), threat, data.x, data.y, 10)
    state, begun = run_through(APGDT(steps=270, rounds=3), oracle)
    assert begun == [*range(10, 91, 10), 120, 150, 180]
    for row in state.targets.tolist():
        assert sorted(row[:9]) == list(range(1, 10))
        assert len(set(row[9:12])) == 3
        assert row[12] in row[9:12]
    assert APGDT(steps=270, rounds=3).longest_run == 90
    assert APGDT(steps=900).longest_run == 100


def test_those_that_came_nearest_go_on() -> None:
    """Two classes: the first stays behind by 0.1, how far the second does is a matter of eps."""
    weight = torch.cat([torch.zeros(1, 9), torch.ones(1, 9)])
    x, y = torch.full((3, 1, 3, 3), 0.5), torch.zeros(3, dtype=torch.long)
    model = Classifier(Fan(weight, torch.tensor([0.1, 4.5 + 0.5])))
    for eps, nearest in [(0.03, 1), (0.05, 2)]:  # the second stays behind by 0.23, by 0.05
        oracle = Oracle(Passes(model), Lp(Norm.LINF, eps), x, y, 3)
        state, begun = run_through(APGDT(steps=40, targets=2, rounds=2), oracle)
        assert begun == [10, 20]
        assert state.targets[:, 2].tolist() == [nearest] * 3
        assert not bool(oracle.found.any())


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2, Norm.LINF])
def test_the_only_class_that_can_win_is_found(norm: Norm) -> None:
    model, data, distances = fan(norm, 24)
    least = distances.amin(1)
    threat = Lp(norm, float(least.median()))
    outcome = evaluate(model, APGDT(steps=270, rounds=3), threat, data)
    robust = torch.tensor([record.robust for record in outcome.records])
    assert not bool(robust[least < 0.98 * threat.eps].any())
    assert bool(robust[least > threat.eps].all())
    assert {r.queries for r in outcome.records if r.robust} == {272}
