from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lite import Attack, Dataset, Lp, Norm, evaluate


@dataclass(frozen=True)
class Tired:
    adv: Tensor
    moves: Tensor
    done: Tensor


@dataclass(frozen=True)
class Walker(Attack):
    """Leaves after as many steps as the label says, whatever `steps` allows."""

    steps: int = 10

    def supports(self, threat):
        return True

    def start(self, oracle, x, y, rng):
        return Tired(x, torch.zeros_like(y), torch.zeros_like(y, dtype=torch.bool))

    def step(self, oracle, x, y, rng, state):
        oracle.labels(state.adv)
        moves = state.moves + 1
        return Tired(state.adv, moves, moves > y)


def test_a_sample_that_is_done_leaves_with_a_last_look():
    model = nn.Flatten()
    labels = torch.tensor([0, 1, 2, 3])
    data = Dataset(torch.eye(4).reshape(4, 1, 2, 2), labels)
    for batch_size in (1, 3, 4):
        outcome = evaluate(model, Walker(), Lp(Norm.LINF, 0.1), data, batch_size=batch_size)
        assert outcome.clean_accuracy == 1
        assert [r.queries for r in outcome.records] == [2, 3, 4, 5]
