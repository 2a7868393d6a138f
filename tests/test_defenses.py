"""Defenses at inference: what they do to images, whose gradient attackers get, whose draws."""

import pytest
import torch
from rbl_defenses import BitDepth, Ensemble, GaussianNoise, Jpeg, MedianBlur, RandomResizePad
from scipy.ndimage import median_filter
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Classifier,
    Dataset,
    Lp,
    Norm,
    UnsupportedError,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.defense import Transform
from robustbench_lite.lending import Lent
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.prepared import prepare
from robustbench_lite.rng import Rng

LINF = Lp(Norm.LINF, 0.15)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rng(n: int) -> Rng:
    return Rng(torch.arange(n))


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=stream(0))


def linear(pixels: int, classes: int = 3) -> Classifier:
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=stream(1)))
        layer.bias.zero_()
    return Classifier(nn.Sequential(nn.Flatten(), layer).eval())


def test_bit_depth_rounds_to_its_levels() -> None:
    x = torch.tensor([0.0, 0.1, 0.2, 0.49, 0.51, 0.9, 1.0]).reshape(1, 1, 1, 7)
    expected = torch.tensor([0, 0, 1 / 3, 1 / 3, 2 / 3, 1, 1]).reshape(1, 1, 1, 7)
    assert torch.allclose(BitDepth(bits=2).images(x, rng(1)), expected)


def test_jpeg_keeps_flat_images_and_loses_more_at_less_quality() -> None:
    flat = torch.full((2, 3, 16, 16), 100 / 255)
    assert torch.allclose(Jpeg().images(flat, rng(2)), flat, atol=1e-6)
    x = images(4, 3, 16, 16)
    lost = [float((Jpeg(quality=q).images(x, rng(4)) - x).square().mean()) for q in (95, 50, 10)]
    assert 0 < lost[0] < lost[1] < lost[2]
    seen = Jpeg().images(images(3, 1, 9, 7), rng(3)) * 255
    assert seen.shape == (3, 1, 9, 7)
    assert torch.allclose(seen, seen.round(), atol=1e-3)


def test_jpeg_says_which_channels_it_takes() -> None:
    with pytest.raises(UnsupportedError, match="1 or 3 channels, not 4"):
        Jpeg().images(images(1, 4, 8, 8), rng(1))


@pytest.mark.parametrize("window", [2, 3, 5])
def test_median_blur_is_scipys(window: int) -> None:
    x = images(3, 2, 9, 11)
    mine = MedianBlur(window=window).images(x, rng(3))
    if window % 2:  # of an even number of pixels torch takes the lower middle, scipy the upper
        theirs = median_filter(x.numpy(), size=(1, 1, window, window), mode="mirror")
        assert torch.equal(mine, torch.from_numpy(theirs))
    else:
        theirs = -median_filter(-x.numpy(), size=(1, 1, window, window), mode="mirror")
        assert torch.equal(mine, torch.from_numpy(theirs))
    assert MedianBlur(window=9).images(images(1, 1, 2, 3), rng(1)).shape == (1, 1, 2, 3)


def test_gaussian_noise_has_its_deviation() -> None:
    x = torch.full((8, 3, 32, 32), 0.5)
    added = GaussianNoise(sigma=0.2).images(x, rng(8)) - x
    assert float(added.std()) == pytest.approx(0.2, rel=0.02)
    assert float(added.mean()) == pytest.approx(0.0, abs=0.01)


def test_random_resize_pad_shrinks_and_moves_within_the_frame() -> None:
    ones = torch.ones(400, 1, 20, 20)
    seen = RandomResizePad(smallest=0.5).images(ones, rng(400))
    share = seen.mean((1, 2, 3)).sqrt()
    assert 0.45 < float(share.min()) < 0.55
    assert 0.95 < float(share.max()) < 1.05
    assert float(share.mean()) == pytest.approx(0.75, abs=0.03)
    # Whatever the place, nothing is pushed over the edge.
    columns = (seen.amax((1, 2)) > 0.25).sum(1).double() / 20
    assert float((columns - share).abs().max()) < 0.1
    left = (seen.amax((1, 2)) > 0.25).double().argmax(1)
    assert 0 == int(left.min()) < int(left.max())


class Halve(Transform):
    """A change with a stand-in that is neither the identity nor the change."""

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        return (x / 2).round(decimals=1)

    def stand_in(self, x: Tensor, rng: Rng) -> Tensor:
        return x / 2


def slope(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    logits = classifier(leaf)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    return logits.detach(), gradient


def test_attackers_get_the_value_of_the_change_and_the_gradient_of_its_stand_in() -> None:
    inner, x = linear(12), images(4, 1, 3, 4)
    defended = Halve().wrap(inner)
    logits, gradient = slope(defended, x)
    assert torch.allclose(logits, inner((x / 2).round(decimals=1)))
    assert torch.allclose(gradient, slope(inner, x)[1] / 2)
    defended.naive = True
    logits, gradient = slope(defended, x)
    assert torch.allclose(logits, inner((x / 2).round(decimals=1)))
    assert torch.equal(gradient, torch.zeros_like(x))


def test_changes_are_made_in_the_order_given() -> None:
    inner, x = linear(12), images(4, 1, 3, 4)
    noise = GaussianNoise(sigma=0.3)
    one = noise.wrap(BitDepth(bits=1).wrap(inner))
    other = BitDepth(bits=1).wrap(noise.wrap(inner))
    first = noise.images(x.round(), rng(4).branch(1))
    assert torch.allclose(one(x, rng(4)), inner(first))
    second = noise.images(x, rng(4).branch(0)).round()
    assert torch.allclose(other(x, rng(4)), inner(second))
    assert one.randomized
    assert other.randomized
    assert not BitDepth().wrap(inner).randomized


def test_a_defended_classifier_keeps_normalisation_and_is_prepared() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    inner = Classifier(net.eval(), mean=(0.2, 0.4), std=(0.5, 0.25), classes=["a", "b", "c"])
    x = images(5, 2, 6, 6)
    defended = GaussianNoise(sigma=0.01).wrap(BitDepth(bits=8).wrap(inner))
    assert float((defended(x) - inner(x)).abs().max().detach()) < 0.5
    assert defended.classes == ("a", "b", "c")
    fast = prepare(defended, x)
    assert fast is not defended
    assert torch.allclose(fast(x, rng(5)), defended(x, rng(5)), atol=1e-5)


def test_without_given_draws_every_look_differs() -> None:
    defended, x = GaussianNoise().wrap(linear(12)), images(4, 1, 3, 4)
    assert not torch.equal(defended(x), defended(x))
    assert torch.equal(defended(x, rng(4)), defended(x, rng(4)))


def outcomes(model: Classifier, attack: str, data: Dataset, **how: object) -> dict[str, object]:
    plan = load_attack(attack, steps=3)
    outcome = evaluate(model, plan, LINF, data, **how)
    return {r.id: (r.correct, r.robust, r.size, r.queries) for r in outcome.records}


@pytest.mark.parametrize("attack", ["pgd", "square"])
def test_draws_belong_to_the_sample_and_the_question_not_to_the_batch(attack: str) -> None:
    model = load_model("digits-cnn+gaussian-noise?sigma=0.6+random-resize-pad")
    data = load_data("digits").take(range(16))
    whole = outcomes(model, attack, data, batch_size=64)
    assert outcomes(model, attack, data, batch_size=5) == whole
    backwards = data.take(range(15, -1, -1))
    assert outcomes(model, attack, backwards, batch_size=7, exact=False) == whole
    assert outcomes(model, attack, data, seed=1) != whole
    robust = sum(bool(r[1]) for r in whole.values())
    assert 0 < robust < 16


def noisy_oracle(width: int = 64, *, exact: bool = False) -> Oracle[Lp]:
    x, keys = images(5, 1, 3, 4), torch.arange(5) * 7
    passes = Passes(GaussianNoise(sigma=0.3).wrap(linear(12)), width, exact)
    return Oracle(passes, LINF, x, torch.zeros(5).long(), 3, keys=keys)


def test_every_question_of_a_slot_gets_draws_of_its_own_and_the_same_ones_again() -> None:
    one, other = noisy_oracle(), noisy_oracle()
    x = one.x
    first, second = one.logits(x), one.logits(x)
    assert not torch.isclose(first, second).any()
    several = other.logits(torch.stack([x, x, x], 1))
    assert not torch.isclose(several[:, 0], several[:, 1]).any()
    assert torch.allclose(several[:, 2], first)
    # The draws follow the slot, wherever it goes.
    left, right = noisy_oracle().take(torch.tensor([3, 1])), noisy_oracle().take(torch.tensor([4]))
    left.logits(left.x)
    joined = left.take(torch.arange(len(left.x)), right)
    answers = joined.logits(joined.x)
    assert torch.allclose(answers[:2], second[[3, 1]])
    assert torch.allclose(answers[2:], first[[4]])


def test_what_some_slots_ask_apart_counts_for_them_afterwards() -> None:
    plain, apart = noisy_oracle(), noisy_oracle()
    rows = torch.tensor([2, 4])
    first, second = plain.logits(plain.x), plain.logits(plain.x)
    with apart.part(rows) as some:
        assert torch.allclose(some.logits(some.x), first[rows])
    after = apart.logits(apart.x)
    assert torch.allclose(after[rows], second[rows])
    assert torch.allclose(after[[0, 1, 3]], first[[0, 1, 3]])


@pytest.mark.parametrize("exact", [False, True])
def test_draws_do_not_depend_on_how_a_pass_is_cut_up(exact: bool) -> None:
    whole, cut = noisy_oracle(), noisy_oracle(2, exact=exact)
    points = torch.stack([whole.x, whole.x.flip(3)], 1)
    assert torch.allclose(whole.logits(points), cut.logits(points), atol=1e-6)
    assert torch.allclose(
        whole.gradient(whole.x, whole.y, Loss.MARGIN), cut.gradient(cut.x, cut.y, Loss.MARGIN)
    )


def test_attackers_average_over_draws_unless_naive() -> None:
    data = load_data("digits").take(range(6))
    spec, plan = "digits-cnn+gaussian-noise", load_attack("pgd", steps=3)
    tiny = Lp(Norm.LINF, 1e-6)
    knowing = evaluate(load_model(spec), plan, tiny, data)
    naive = evaluate(load_model(spec, naive=True), plan, tiny, data)
    robust = [i for i, r in enumerate(knowing.records) if r.robust and naive.records[i].robust]
    assert robust
    for i in robust:
        assert knowing.records[i].queries == 20 * naive.records[i].queries
    assert any("averaged over 20 passes" in doubt.why for doubt in knowing.doubts)
    assert any("does not know of the defenses" in doubt.why for doubt in naive.doubts)


def test_what_a_naive_attack_cannot_break_an_adaptive_one_does() -> None:
    data = load_data("digits").take(range(60))
    spec, plan = "digits-cnn+bit-depth?bits=2", load_attack("pgd", steps=10)
    wide = Lp(Norm.LINF, 0.3)
    knowing = evaluate(load_model(spec), plan, wide, data)
    naive = evaluate(load_model(spec, naive=True), plan, wide, data)
    assert knowing.clean_accuracy == naive.clean_accuracy > 0.9
    assert naive.robust_accuracy > 0.6
    assert knowing.robust_accuracy < naive.robust_accuracy - 0.4


def test_rows_lent_to_another_library_draw_by_slot_and_call() -> None:
    noisy, keys = GaussianNoise(sigma=0.3).wrap(linear(12)), torch.tensor([3, 5])
    x = images(2, 1, 3, 4)

    def lent() -> Lent:
        return Lent(Passes(noisy), Access.GRADIENTS, 3, keys)

    one, two = lent(), lent()
    first = one(x)
    assert torch.equal(first, two(x))
    assert not torch.equal(first, one(x))
    twice = lent()(torch.cat([x, x]))
    assert not torch.equal(twice[:2], twice[2:])


def test_an_ensemble_averages_probabilities() -> None:
    x = load_data("digits").x[:9]
    both = load_model("digits-cnn+ensemble?others=digits-cnn-at")
    parts = [load_model(name)(x).softmax(1) for name in ("digits-cnn", "digits-cnn-at")]
    assert torch.allclose(both(x).exp(), (parts[0] + parts[1]) / 2, atol=1e-6)
    assert both.name == "digits-cnn+ensemble?others=digits-cnn-at"


def test_an_ensemble_draws_for_every_member() -> None:
    both = Ensemble(others="digits-cnn+gaussian-noise").wrap(load_model("digits-cnn"))
    x = load_data("digits").x[:9]
    assert both.randomized
    assert torch.equal(both(x, rng(9)), both(x, rng(9)))
    assert not torch.equal(both(x), both(x))
