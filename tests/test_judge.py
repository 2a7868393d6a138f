"""What the judge makes of claims that do not hold, and of errors in the middle."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite.judge as judge
from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Oracle,
    UnsupportedError,
    Walk,
    evaluate,
    load_attack,
)


class Line(nn.Module):
    """Two classes on either side of the mean 0.5; `bias` moves the border."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.0]))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).mean(1, keepdim=True) - 0.5 + self.bias) * self.weight


def steps_below_grey() -> Dataset:
    x = 0.5 - torch.arange(1, 9)[:, None, None, None] * 0.01 * torch.ones(8, 1, 2, 2)
    return Dataset(x, torch.zeros(8, dtype=torch.long))


def test_claims_of_a_prepared_model_that_lies_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Line()
    liar = Classifier(Line(bias=0.03))
    monkeypatch.setattr(judge, "prepare", lambda classifier, example, compiled: liar)
    data, threat = steps_below_grey(), Lp(Norm.LINF, 0.045)
    outcome = evaluate(honest, load_attack("pgd"), threat, data)
    # The liar falls up to a distance of 0.075, the original up to 0.045: asked again, it decides.
    assert [r.robust for r in outcome.records] == [False] * 4 + [True] * 4
    with torch.no_grad():
        assert honest(outcome.adversarials[:4]).argmax(1).tolist() == [1] * 4
    assert torch.equal(outcome.adversarials[4:], data.x[4:])
    assert any("the faster copy and the original" in doubt.why for doubt in outcome.doubts)


def test_unverified_claims_leave_a_doubt() -> None:
    class TwoFaced(Line):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) > 0  # cannot be traced: no prepared copy is made
            logits = super().forward(x)
            return logits.flip(1) if torch.is_grad_enabled() else logits

    data = steps_below_grey()
    outcome = evaluate(TwoFaced(), load_attack("fgsm"), Lp(Norm.LINF, 0.001), data)
    assert outcome.robust_accuracy == 1.0
    assert all(r.size is None and r.attack == "" for r in outcome.records)
    assert any("8 adversarial examples did not fool" in doubt.why for doubt in outcome.doubts)


def test_a_model_without_gradients_is_named_instead_of_crashing() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            over = (x.flatten(1).mean(1) > 0.5).long()
            return nn.functional.one_hot(over, 2).float()

    with pytest.raises(UnsupportedError, match="gradient"):
        evaluate(Steps(), load_attack("pgd"), Lp(Norm.LINF, 0.1), steps_below_grey())


class Still(Attack):
    """Needs decisions only and stays where it is."""

    needs = Access.DECISIONS

    def supports(self, threat: object) -> bool:
        return True

    def start(self, oracle: Oracle[Any], x: Tensor, *_: Any) -> Walk:
        return Walk(x)


class Crash(Still):
    def step(self, *_: Any) -> Walk:
        raise ZeroDivisionError


class AskTooMuch(Still):
    def step(self, oracle: Oracle[Any], x: Tensor, *_: Any) -> Walk:
        oracle.logits(x)
        return Walk(x)


@pytest.mark.parametrize("attack", [Crash(3), AskTooMuch(3)], ids=lambda a: type(a).__name__)
def test_the_model_comes_back_after_an_error(attack: Attack) -> None:
    model = Line().train()
    before = torch.get_rng_state()
    with pytest.raises((ZeroDivisionError, UnsupportedError)):
        evaluate(model, attack, Lp(Norm.LINF, 0.5, Access.DECISIONS), steps_below_grey())
    assert model.training
    assert model.weight.requires_grad
    assert torch.equal(before, torch.get_rng_state())
