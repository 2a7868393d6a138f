"""Randomized smoothing and its certificate, against exact answers on a half-space."""

import json
import math

import pytest
import torch
from rbl_defenses import RandomizedSmoothing
from rbl_defenses.randomized_smoothing import Smoothed
from scipy.stats import beta, norm
from torch import Tensor, nn

from robustbench_lite import (
    Classifier,
    Dataset,
    InputError,
    Lp,
    Norm,
    UnsupportedError,
    evaluate,
    load_attack,
)
from robustbench_lite.certificate import certify
from robustbench_lite.rng import Rng

SIGMA = 0.5


class HalfSpace(nn.Module):
    """Class 1 where the mean of 16 pixels is above one half: its distance is known exactly."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 100 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-lead, lead], 1)


def at_distances(distances: list[float]) -> Dataset:
    """Images whose L2 distance to the border is given (in class 1), then one of class 0."""
    levels = torch.tensor([0.5 + d / 4 for d in distances])
    return Dataset(
        levels[:, None, None, None].expand(-1, 1, 4, 4).clone(), torch.ones(len(levels)).long()
    )


def smoothed(**fields: object) -> Classifier:
    return RandomizedSmoothing(sigma=SIGMA, **fields).wrap(Classifier(HalfSpace()))  # type: ignore[arg-type]


def test_the_radius_is_just_below_the_distance_of_a_half_space() -> None:
    # For a half-space the smoothed classifier's true radius is the distance (Cohen et al., sec. 3).
    distances = [0.2, 0.5, 0.9]
    proven = certify(smoothed(draws=20_000), at_distances(distances))
    assert proven.labels.tolist() == [1, 1, 1]
    radii = proven.radius.tolist()
    assert all(r < d for r, d in zip(radii, distances, strict=True))
    assert all(r > d - 0.06 for r, d in zip(radii, distances, strict=True))


def test_the_radius_is_the_papers_formula() -> None:
    model = smoothed(draws=500, alpha=0.01)
    assert isinstance(model, Smoothed)
    for count in (300, 480, 500):
        least = beta.ppf(0.01, count, 500 - count + 1)  # Clopper and Pearson's lower bound
        assert model._radius(count) == pytest.approx(SIGMA * norm.ppf(least))
    assert model._radius(250) == 0


def test_it_abstains_at_the_border_and_no_radius_counts_there() -> None:
    proven = certify(smoothed(draws=500), at_distances([0.0, 1.0]))
    assert proven.labels.tolist() == [-1, 1]
    assert (proven.abstained, proven.n) == (1, 2)
    assert proven.accuracy(0.0) == 0.5
    assert proven.accuracy(0.3) == 0.5
    assert proven.accuracy(1.0) == 0.0
    assert proven.mean_radius == pytest.approx(float(proven.radius[1]) / 2)


def test_a_wrong_class_is_never_certified_accuracy() -> None:
    data = at_distances([0.8])
    wrong = Dataset(data.x, torch.zeros(1).long())
    proven = certify(smoothed(), wrong)
    assert float(proven.radius[0]) > 0.4
    assert proven.accuracy(0.0) == 0.0
    assert proven.mean_radius == 0.0


def test_proofs_belong_to_the_sample_not_to_the_batch() -> None:
    data = at_distances([0.1, 0.2, 0.3, 0.4, 0.5])
    whole = certify(smoothed(draws=200), data)
    cut = certify(smoothed(draws=200), data, batch_size=2)
    turned = certify(smoothed(draws=200), data.take([4, 3, 2, 1, 0]))
    assert torch.equal(whole.radius, cut.radius)
    assert torch.equal(whole.radius.flip(0), turned.radius)
    other = certify(smoothed(draws=200), data, seed=1)
    assert not torch.equal(whole.radius, other.radius)


def test_no_attack_breaks_what_is_proven() -> None:
    data = at_distances([0.3, 0.6, 0.9])
    model = smoothed(draws=5000, votes=200)
    proven = certify(model, data)
    least = float(proven.radius.min())
    # Within the radius the vote is above one half on average; 200 votes seldom turn it far inside.
    inside = evaluate(model, load_attack("pgd", steps=10), Lp(Norm.L2, least / 2), data)
    assert inside.robust_accuracy == 1.0
    beyond = evaluate(model, load_attack("pgd", steps=20), Lp(Norm.L2, 1.2), data)
    assert beyond.robust_accuracy == 0.0


def test_attackers_climb_the_mean_probability_of_the_same_draws() -> None:
    layer = nn.Linear(4, 3)
    inner = Classifier(nn.Sequential(nn.Flatten(), layer))
    model = RandomizedSmoothing(sigma=0.3, votes=5).wrap(inner)
    x, keys = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(2)
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf, Rng(keys))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    with torch.no_grad():
        assert torch.allclose(logits, model(x, Rng(keys)))
    assert torch.allclose(logits.sum(1), torch.ones(2))
    by_hand = x.clone().requires_grad_(True)
    draws = [0.3 * Rng(keys).branch(i).normal(1, 2, 2) for i in range(5)]
    mean = torch.stack([inner(by_hand + d).softmax(1) for d in draws]).mean(0)
    (expected,) = torch.autograd.grad(mean.log()[:, 0].sum(), by_hand)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_logits_that_are_not_finite_stay_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), math.nan)

    model = RandomizedSmoothing().wrap(Classifier(Broken()))
    outcome = evaluate(model, load_attack("fgsm"), Lp(Norm.L2, 0.1), at_distances([0.5]))
    assert outcome.records[0].error
    proven = certify(model, at_distances([0.5]))
    assert (proven.abstained, float(proven.radius[0])) == (1, 0.0)


def test_who_proves_nothing_is_told_what_would() -> None:
    with pytest.raises(UnsupportedError, match=r"proves nothing.*\+randomized-smoothing"):
        certify(Classifier(HalfSpace(), name="half"), at_distances([0.5]))
    with pytest.raises(InputError, match="batch_size is 0"):
        certify(smoothed(), at_distances([0.5]), batch_size=0)


def test_the_command_prints_and_writes_what_is_proven(forked_rbl, tmp_path) -> None:
    done = forked_rbl(
        *("certify", "-m", "digits-cnn+randomized-smoothing?sigma=0.1&draws=100"),
        *("--n", "40", "--eps", "0,0.1,5", "--json", "proof.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("digits-cnn+randomized-smoothing?sigma=0.1&draws=100 on digits, 40 ")
    assert lines[1].split() == ["radius", "certified", "%", "95", "%", "CI"]
    told = json.loads((tmp_path / "proof.json").read_text())
    right = [s for s in told["samples"] if s["proven"] == s["label"]]
    assert told["certified"][0]["accuracy"] == len(right) / 40
    shares = [float(line.split()[1]) for line in lines[2:5]]
    assert shares[0] == pytest.approx(100 * len(right) / 40)
    assert shares[0] >= shares[1] > shares[2] == 0.0
    assert lines[-1] == "each proof holds with probability 99.9 % or more"
    assert f"abstained on {told['abstained']} of 40" in lines[-2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-m", "digits-cnn"), "model digits-cnn proves nothing; put a defense with a certificate"),
        (("-m", "digits-cnn+randomized-smoothing", "--eps", "inf"), "--eps inf is no radius"),
        (("-m", "digits-cnn+randomized-smoothing?sigma=0"), "sigma"),
    ],
)
def test_what_cannot_be_certified_ends_in_one_sentence(forked_rbl, tmp_path, arguments, told):
    done = forked_rbl("certify", *arguments, "--json", "f.json", cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_class_is_guessed_from_other_draws_than_are_counted() -> None:
    seen: list[Tensor] = []

    class Watching(HalfSpace):
        def forward(self, x: Tensor) -> Tensor:
            seen.extend(x.detach())
            return super().forward(x)

    model = RandomizedSmoothing(guesses=5, draws=7).wrap(Classifier(Watching()))
    assert isinstance(model, Smoothed)
    model.certify(at_distances([0.5]).x, Rng(torch.arange(1)))
    assert len({image.numpy().tobytes() for image in seen}) == 12
