import pytest
import torch
from rbl_attacks import CW, PGD
from rbl_defenses import PGDAT
from torch import nn

from robustbench_lite import Dataset, InputError, Loss, Lp, Norm, evaluate


def test_fields_are_checked_in_the_library_too():
    for make in (
        lambda: PGD(step_size=-1.0),
        lambda: PGD(steps=0),
        lambda: PGD(step_size=float("nan")),
        lambda: CW(searches=0),
        lambda: PGDAT(step_size=0.0),
        lambda: PGD(loss="entropy"),
    ):
        with pytest.raises(InputError):
            make()


def test_a_text_becomes_the_fields_type():
    assert PGD(loss="margin") == PGD(loss=Loss.MARGIN)
    assert PGD(steps="7").steps == 7


def test_a_guessing_model_is_doubted_and_a_good_one_is_not():
    rows = torch.eye(4).repeat(50, 1).reshape(200, 1, 2, 2)
    labels = torch.arange(4).repeat(50)
    good = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        good[1].weight.copy_(3 * torch.eye(4))
    guess = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with torch.no_grad():
        guess[1].weight.zero_()
        guess[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    threat, attack = Lp(Norm.LINF, 0.01), PGD(steps=1)
    doubts = evaluate(guess, attack, threat, Dataset(rows, labels)).doubts
    assert any("not above chance" in doubt.why for doubt in doubts)
    assert evaluate(good, attack, threat, Dataset(rows, labels)).doubts == ()


def test_equal_attacks_in_a_cascade_get_other_random_numbers():
    from robustbench_lite import Cascade, Restarts

    images = torch.full((64, 1, 1, 1), 0.5)
    data = Dataset(images + torch.linspace(0, 0.1, 64)[:, None, None, None], torch.zeros(64).long())
    narrow = nn.Sequential(nn.Flatten(), _Band())
    once = PGD(steps=1, step_size=1e-6)
    threat = Lp(Norm.LINF, 0.4)
    one = evaluate(narrow, once, threat, data).robust_accuracy
    twice = evaluate(narrow, Cascade(once, once), threat, data)
    assert twice.robust_accuracy < one
    assert [r.robust for r in twice.records] == [
        r.robust for r in evaluate(narrow, Restarts(once, 2), threat, data).records
    ]


class _Band(nn.Module):
    """Wrong only where the pixel's third decimal digit is below 3: a random start must hit it."""

    def forward(self, x):
        fooled = (x * 100).frac() < 0.3
        clean = (x * 100).frac().new_zeros(x.shape)
        inside = (x >= 0.5) & (x <= 0.6)
        return torch.cat([torch.where(fooled & ~inside, -2.0, 2.0) + 0 * x, clean], dim=1)
