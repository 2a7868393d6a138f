"""The gradient attack with a patch: it walks to the place that counts, within its queries."""

import pytest
import torch
from rbl_attacks.patch import PatchAttack
from torch import Tensor, nn

from robustbench_lite import Dataset, Restarts, Targeted, evaluate
from robustbench_lite.structured import Patch
from robustbench_lite.testing.models import Recorder, generator


def images(*shape: int) -> Tensor:
    return 0.05 + 0.9 * torch.rand(*shape, generator=generator(0))


class Constantly(nn.Module):
    """Class 0."""

    def forward(self, x: Tensor) -> Tensor:
        some = x.flatten(1).sum(1)
        return torch.stack([some * 0 + 1, some * 0], 1)


class Corner(nn.Module):
    """Class 1 where the lower right 3 by 3 pixels are bright on average."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, -3:, -3:].flatten(1).mean(1)
        return torch.stack([0.8 - bright, bright - 0.8, -bright - 1], 1)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 7, 12)], ids=str)
def test_a_patch_walks_to_the_place_that_counts(shape: tuple[int, int, int]) -> None:
    x = 0.3 * images(6, *shape)
    data = Dataset(x, torch.zeros(6, dtype=torch.long))
    threat = Patch(area=9 / (shape[1] * shape[2]))
    attack = Restarts(PatchAttack(steps=100, stride=1), 4)  # a start on a plateau stays there
    outcome = evaluate(Corner(), attack, threat, data)
    assert outcome.robust_accuracy == 0.0
    changed = (outcome.adversarials != x).any(1)
    assert bool(changed[:, -2, -2].all())
    assert evaluate(Corner(), attack, Patch(0.02), data).robust_accuracy == 1.0
    assert evaluate(Corner(), attack, threat, data, goal=Targeted(2)).robust_accuracy == 1.0
    assert evaluate(Corner(), attack, threat, data, goal=Targeted(1)).robust_accuracy == 0.0


def test_a_patch_attack_keeps_to_its_queries() -> None:
    x = 0.3 * images(3, 1, 9, 9)
    data = Dataset(x, torch.zeros(3, dtype=torch.long))
    for cap in (1, 29, 30, 31, 40):
        recorder = Recorder(Constantly())
        outcome = evaluate(recorder, PatchAttack(), Patch(0.1, queries=cap), data)
        assert [r.queries for r in outcome.records] == [cap] * 3
