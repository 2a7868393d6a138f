"""Where memory does not hold a batch, a smaller one gives the same outcome."""

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Dataset, InputError, Lp, Norm, evaluate, load_attack
from robustbench_lite.running import Progress
from robustbench_lite.testing.models import conv_problem

THREAT = Lp(Norm.LINF, 0.02)
ATTACK = load_attack("pgd", steps=10)


class Small(nn.Module):
    """A device that holds so many images, and fails as CUDA or as the CPU's allocator does."""

    def __init__(self, model: nn.Module, room: int, *, cuda: bool, train_only: bool) -> None:
        super().__init__()
        self.model, self.room, self.cuda, self.train_only = model, room, cuda, train_only

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room and (x.requires_grad or not self.train_only):
            if self.cuda:
                raise torch.OutOfMemoryError("CUDA out of memory")
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        logits: Tensor = self.model(x)
        return logits


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("train_only", [True, False])
def test_a_smaller_batch_gives_the_same_outcome(cuda: bool, train_only: bool) -> None:
    problem = conv_problem(40)
    stands: list[Progress] = []
    small = Small(problem.model, 20, cuda=cuda, train_only=train_only)
    outcome = evaluate(small, ATTACK, THREAT, problem.data, report=stands.append)
    assert 0 < outcome.robust_accuracy < 1
    whole = evaluate(problem.model, ATTACK, THREAT, problem.data)
    assert [r.robust for r in outcome.records] == [r.robust for r in whole.records]
    assert [r.queries for r in outcome.records] == [r.queries for r in whole.records]
    assert (stands[-1].done, stands[-1].total) == (40, 40)
    assert stands[-1].robust == round(40 * outcome.robust_accuracy)


def test_claims_are_verified_a_batch_at_a_time() -> None:
    problem = conv_problem(40)
    whole = evaluate(problem.model, ATTACK, THREAT, problem.data)
    parts = evaluate(problem.model, ATTACK, THREAT, problem.data, batch_size=4)
    assert sum(not r.robust for r in whole.records) > 8
    assert [r.queries for r in parts.records] == [r.queries for r in whole.records]
    assert parts.doubts == whole.doubts


def test_what_does_not_fit_at_all_is_told() -> None:
    problem = conv_problem(4)
    with pytest.raises(InputError, match="memory does not hold 1 images; give another --device"):
        evaluate(Small(problem.model, 0, cuda=True, train_only=True), ATTACK, THREAT, problem.data)
    small = Small(problem.model, 8, cuda=True, train_only=True)
    with pytest.raises(InputError, match="memory does not hold 32 images; leave out --exact"):
        evaluate(small, ATTACK, THREAT, problem.data, exact=True)


def test_other_errors_are_not_swallowed() -> None:
    class Crash(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                raise RuntimeError("another error")
            return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], 1)

    data = Dataset(torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(RuntimeError, match="another error"):
        evaluate(Crash(), ATTACK, THREAT, data)
