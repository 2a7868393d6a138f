"""One pixel: it finds the weak one and changes no more than eps components."""

import pytest
import torch
from rbl_attacks.one_pixel import OnePixel
from torch import Tensor, nn

from robustbench_lite import Access, Classifier, Dataset, Lp, Norm, Targeted, evaluate
from robustbench_lite.testing.models import (
    Linear,
    Recorder,
    ScoresOnly,
    generator,
    signed_weights,
)


class Sure(Linear):
    """As Linear, with class 0 so far ahead that nothing fools it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 1000 * nn.functional.one_hot(torch.zeros(len(x)).long(), logits.shape[1])


class WeakPixel(nn.Module):
    """Class 1 where one pixel is very bright; class 0 whatever the others are."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, x: Tensor) -> Tensor:
        light = x[:, :, self.row, self.column].mean(1)
        around = x[:, :, :, self.column].mean((1, 2)) + x[:, :, self.row].mean((1, 2))
        return torch.stack([light * 0 + 1.4, light + around, light * 0 - 5], 1)


@pytest.mark.parametrize(
    ("shape", "eps"), [((1, 8, 8), 1), ((3, 8, 11), 3), ((1, 9, 5), 2), ((3, 6, 6), 4)], ids=str
)
def test_one_pixel_finds_the_weak_pixel(shape: tuple[int, int, int], eps: float) -> None:
    x = 0.3 * torch.rand(8, *shape, generator=generator(3))
    data = Dataset(x, torch.zeros(8, dtype=torch.long))
    row, column = shape[1] - 1, shape[2] - 2
    attack = OnePixel(steps=60, population=50)
    no_gradient = Classifier(ScoresOnly(WeakPixel(row, column)), access=Access.SCORES)
    outcome = evaluate(no_gradient, attack, Lp(Norm.L0, eps, Access.SCORES), data)
    assert outcome.robust_accuracy <= 0.25
    changed = (outcome.adversarials != x).any(1)
    lost = ~torch.tensor([record.robust for record in outcome.records])
    assert bool(changed[lost][:, row, column].all())
    assert int(changed.flatten(1).sum(1).max()) <= max(1, eps // shape[0])
    reached = evaluate(WeakPixel(row, column), attack, Lp(Norm.L0, eps), data, goal=Targeted(1))
    assert reached.robust_accuracy <= 0.25
    never = evaluate(WeakPixel(row, column), attack, Lp(Norm.L0, eps), data, goal=Targeted(2))
    assert never.robust_accuracy == 1.0


@pytest.mark.parametrize("eps", [0, 1, 2, 3, 5, 6, 1000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_one_pixel_changes_no_more_components_than_eps(channels: int, eps: float) -> None:
    x = torch.rand(2, channels, 5, 4, generator=generator(4))
    recorder = Recorder(Sure(signed_weights(2, channels * 20, 2)), keep=True)
    data = Dataset(x, torch.zeros(2, dtype=torch.long))
    evaluate(recorder, OnePixel(steps=4, population=6), Lp(Norm.L0, eps), data)
    seen = torch.cat(recorder.seen)[4:]
    count = torch.minimum(*(((seen - one) != 0).flatten(1).sum(1) for one in x))
    assert int(count.max()) <= eps
    if eps >= channels:
        pixels = torch.minimum(*(((seen - one) != 0).any(1).flatten(1).sum(1) for one in x))
        assert int(pixels.max()) <= eps // channels
