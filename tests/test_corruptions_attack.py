"""The attack that asks about common corruptions, the mildest first."""

import pytest
import torch
from rbl_attacks.corruptions import Corruptions
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Classifier,
    Dataset,
    InputError,
    Targeted,
    UnsupportedError,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.corruption import KINDS, SEVERITIES, Corruption
from robustbench_lite.testing.models import DecisionsOnly, Recorder

THREAT = Corruption()


def shown(x: Tensor, kind: str, severity: int, draw: int = 0) -> Tensor:
    return THREAT.render(x, torch.tensor([[list(KINDS).index(kind), severity, draw]]).to(x))


class Bright(nn.Module):
    """Class 1 above a mean of `level`."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        more = x.flatten(1).mean(1) - self.level
        return torch.stack([-more, more, more * 0 - 9], 1)


@pytest.mark.parametrize(("level", "least"), [(0.54, 1), (0.62, 3), (0.79, 5), (0.81, None)])
def test_the_least_severity_that_fools_is_found(level: float, least: int | None) -> None:
    data = Dataset(torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.long))
    labels_only = Classifier(DecisionsOnly(Bright(level)), access=Access.DECISIONS)
    attack, threat = Corruptions(kinds="contrast,brightness"), Corruption(5, Access.DECISIONS)
    outcome = evaluate(labels_only, attack, threat, data)
    assert list(outcome.sizes) == ([] if least is None else [least] * 3)
    if least is not None and least > 1:
        below = Corruption(least - 1, Access.DECISIONS)
        assert evaluate(labels_only, attack, below, data).robust_accuracy == 1.0
        to_one = evaluate(labels_only, attack, threat, data, goal=Targeted(1))
        assert to_one.robust_accuracy == 0.0
    assert evaluate(labels_only, attack, threat, data, goal=Targeted(2)).robust_accuracy == 1.0


def test_every_corruption_is_asked_about_once_and_the_mildest_first() -> None:
    x = load_data("digits").x[:1]
    recorder = Recorder(Bright(2.0), keep=True)
    outcome = evaluate(recorder, Corruptions(), THREAT, Dataset(x, torch.tensor([0])))
    assert outcome.records[0].queries == 76  # 75 and the last look
    seen = torch.cat(recorder.seen)[2:77]
    expected = [shown(x, kind, s) for s in range(1, SEVERITIES + 1) for kind in KINDS]
    assert torch.equal(seen, torch.cat(expected))
    two = Corruptions(steps=150, draws=2, kinds="fog")
    recorder = Recorder(Bright(2.0), keep=True)
    evaluate(recorder, two, Corruption(2), Dataset(x, torch.tensor([0])))
    expected = [shown(x, "fog", s, d) for s in (1, 2) for d in (0, 1)]
    assert torch.equal(torch.cat(recorder.seen)[2:6], torch.cat(expected))


def test_robust_accuracy_falls_with_the_severity() -> None:
    data, model = load_data("digits").take(range(40)), load_model("digits-cnn")
    outcomes = [evaluate(model, Corruptions(), Corruption(s), data) for s in (1, 3, 5)]
    left = [outcome.robust_accuracy for outcome in outcomes]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0] < outcomes[0].clean_accuracy


def test_kinds_that_do_not_exist_are_refused() -> None:
    for kinds in ("dew", "fog,dew", "fog,,snow", "fog, snow"):
        with pytest.raises(InputError, match="choose from gaussian-noise"):
            load_attack("corruptions", kinds=kinds)


def test_on_a_surrogate_the_least_severity_means_nothing() -> None:
    data, model = load_data("digits").take(range(3)), load_model("digits-cnn")
    with pytest.raises(UnsupportedError, match="surrogate"):
        evaluate(model, Corruptions(), THREAT, data, surrogate=load_model("digits-cnn-at"))
