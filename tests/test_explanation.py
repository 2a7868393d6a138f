"""Where a classifier looks: exact maps on linear models, the picture's tiles, the command."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Classifier,
    Dataset,
    InputError,
    Lp,
    Norm,
    evaluate,
    load_attack,
)
from robustbench_lite.explanation import Explanation, explain, rollout
from robustbench_lite.picture import draw

WEIGHTS = torch.tensor([1.0, -3.0, 0.0, 2.0]).reshape(1, 2, 2)


class Linear(nn.Module):
    """Logits w.(x - 1/2) and its negative; the image has 16 pixels in four squares of equal w."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", WEIGHTS.repeat_interleave(8, 1).repeat_interleave(8, 2))

    w: Tensor

    def forward(self, x: Tensor) -> Tensor:
        lead = (self.w * (x - 0.5)).flatten(1).sum(1)
        return torch.stack([lead, -lead], 1)


class Attending(Linear):
    """The same, and it says to look at the first patch of four."""

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        first = torch.zeros(len(x), 1, 5, 5)
        first[:, :, :, 1] = 1
        return [first]


def samples() -> Dataset:
    x = torch.full((3, 1, 16, 16), 0.5)
    x[0, 0, 8:, 8:] = 0.52  # class 0 by a hair
    x[1] = 1 - WEIGHTS.repeat_interleave(8, 1).repeat_interleave(8, 2).clamp(0, 1)
    x[2, 0, :8, 8:] = 0.52  # class 1 by a hair
    return Dataset(x, torch.tensor([0, 1, 1]))


def explained(model: nn.Module, count: int = 3, access: Access = Access.GRADIENTS) -> Explanation:
    classifier = Classifier(model, access=access)
    attack = "fgsm" if access is Access.GRADIENTS else "noise"
    outcome = evaluate(classifier, load_attack(attack), Lp(Norm.LINF, 0.1), samples())
    return explain(classifier, samples(), outcome, count)


def test_saliency_is_the_size_of_the_gradient():
    found = explained(Linear())
    expected = WEIGHTS.abs().repeat_interleave(8, 1).repeat_interleave(8, 2) / 3
    assert found.how == "gradient saliency"
    assert torch.allclose(found.seen_before, expected.expand(3, -1, -1), atol=1e-6)
    assert torch.equal(found.seen_before, found.seen_after)


def test_a_model_without_gradients_shows_what_it_loses_when_a_square_is_hidden():
    found = explained(Linear(), access=Access.SCORES)
    assert found.how == "loss when hidden"
    # The mean colour is 0.505: hiding costs 2 x (0.52 - 0.505) and -3 x (0.5 - 0.505) a pixel.
    expected = torch.zeros(16, 16)
    expected[8:, 8:], expected[:8, 8:] = 1, 0.5
    assert torch.allclose(found.seen_before[0], expected, atol=1e-4)


def test_attention_is_shown_where_the_module_tells_it():
    found = explained(Attending())
    corner = torch.zeros(16, 16)
    corner[:8, :8] = 1
    assert found.how == "attention roll-out"
    assert torch.equal(found.seen_before, corner.expand(3, -1, -1))


def test_the_roll_out_multiplies_half_attention_half_way_around():
    torch.manual_seed(0)
    layers = [torch.rand(2, 3, 5, 5).softmax(3) for _ in range(3)]
    mixed = [0.5 * w.mean(1) + 0.5 * torch.eye(5) for w in layers]
    by_hand = mixed[2] @ mixed[1] @ mixed[0]
    assert torch.allclose(rollout(layers), by_hand[:, 0, 1:].reshape(2, 2, 2))


def test_the_random_numbers_of_a_defense_belong_to_the_sample():
    from robustbench_lite import load_model

    data, threat = digits(6), Lp(Norm.LINF, 0.1)
    model = load_model("digits-cnn+gaussian-noise?sigma=0.2")
    whole = explain(model, data, evaluate(model, load_attack("fgsm"), threat, data), 6)
    last = data.take([5])
    alone = explain(model, last, evaluate(model, load_attack("fgsm"), threat, last), 1)
    assert torch.allclose(whole.seen_before[5], alone.seen_before[0], atol=1e-5)


def digits(n: int) -> Dataset:
    from robustbench_lite import load_data

    return load_data("digits").sample(n)


def test_broken_samples_come_first_then_those_that_held():
    assert explained(Linear(), 1).which == (0,)
    assert explained(Linear(), 2).which == (0, 2)
    found = explained(Linear(), 9)
    assert found.which == (0, 1, 2)
    assert found.before.tolist() == [0, 1, 1]
    assert found.after.tolist() == [1, 1, 0]
    assert torch.equal(found.adversarials[1], found.x[1])


def test_other_samples_and_no_samples_are_refused():
    classifier, data = Classifier(Linear()), samples()
    outcome = evaluate(classifier, load_attack("fgsm"), Lp(Norm.LINF, 0.1), data)
    with pytest.raises(InputError, match="other samples"):
        explain(classifier, data.take([0, 2, 1]), outcome, 1)
    with pytest.raises(InputError, match="1 or more"):
        explain(classifier, data, outcome, 0)


def tiles(page: Image.Image, row: int) -> list[np.ndarray]:
    """The five squares of a row, found by where the picture puts them."""
    pixels, y = np.asarray(page), 80 + row * 138
    return [pixels[y : y + 128, x : x + 128] for x in range(170, 170 + 5 * 138, 138)]


def test_the_picture_shows_image_adversarial_and_the_magnified_difference():
    found = explained(Linear())
    page = draw(found, "title", ["zero", "one"])
    for row in range(3):
        images = (found.x[row], found.adversarials[row])
        for tile, image in zip(tiles(page, row)[:2], images, strict=True):
            expected = (image * 255).round().byte().repeat_interleave(8, 1)
            assert (tile[..., 0] == expected.repeat_interleave(8, 2)[0].numpy()).all()
    up, down = tiles(page, 0)[2][..., 0][0, 0], tiles(page, 0)[2][..., 0][0, -1]
    assert {int(up), int(down)} == {0, 255}  # the attack goes along the sign of w
    assert (tiles(page, 1)[2] == 128).all()  # nothing was found


@pytest.mark.parametrize("shape", [(1, 1, 7), (2, 5, 9), (3, 40, 4)])
def test_any_shape_is_drawn(shape):
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lead = x.flatten(1).sum(1) - 1.0
            return torch.stack([lead, -lead], 1)

    data = Dataset(torch.zeros(2, *shape), torch.tensor([1, 1]))
    classifier = Classifier(Sum())
    outcome = evaluate(classifier, load_attack("fgsm"), Lp(Norm.LINF, 0.5), data)
    page = draw(explain(classifier, data, outcome, 2), "t")
    assert (tiles(page, 1)[1] != 255).any()


def test_the_command_draws_what_the_attack_broke(forked_rbl, tmp_path):
    done = forked_rbl(
        *("explain", "--model", "digits-cnn", "--attack", "pgd", "--eps", "0.1"),
        *("--samples", 2, "--n", 20, "--out", "look.png"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    page = Image.open(tmp_path / "look.png")
    assert page.size[1] == 80 + 2 * 138 + 40
    rows = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert all(before == label != after for _, label, before, after, _ in rows)
    assert "look.png: gradient saliency" in done.stdout


def test_the_command_refuses_before_it_attacks(forked_refused):
    given = ("explain", "--model", "digits-cnn", "--attack", "pgd")
    assert "must end in .png" in forked_refused(*given, "--out", "look.jpg")
    assert "--samples 0" in forked_refused(*given, "--out", "look.png", "--samples", 0)
    assert "--out" in forked_refused(*given, "--out", "nowhere/look.png")
