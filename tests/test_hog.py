"""Hand-crafted features and support vector machines: what they compute, learn and allow."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.feature import hog as skimage_hog
from sklearn.svm import SVC, LinearSVC
from torch import Tensor

from robustbench_lite import Access, Lp, Norm, evaluate, load_attack, load_data, load_model
from robustbench_lite.data import Split
from robustbench_lite.zoo.hog import HogMachine, KernelMachine, hog, hog_linear, hog_rbf


def images(n: int, channels: int, size: int) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("channels", "size", "cell"), [(1, 8, 4), (3, 32, 8), (3, 17, 4)])
def test_features_are_those_of_scikit_image(channels, size, cell):
    x = images(4, channels, size).double()
    theirs = [
        skimage_hog(
            one.permute(1, 2, 0).numpy(),
            orientations=9,
            pixels_per_cell=(cell, cell),
            cells_per_block=(2, 2),
            block_norm="L2-Hys",
            channel_axis=2,
        )
        for one in x
    ]
    assert np.abs(hog(x, cell).numpy() - np.stack(theirs)).max() < 1e-6
    assert torch.isfinite(hog(torch.zeros(1, channels, size, size), cell)).all()


def some_digits(classes: int) -> tuple[Tensor, Tensor]:
    data = load_data("digits", Split.TRAIN)
    chosen = (data.y < classes).nonzero().flatten()[:200]
    return data.x[chosen], data.y[chosen]


def fitted(build, classes: int) -> HogMachine:
    x, y = some_digits(classes)
    machine = build(classes, 1, 8, cell=2)
    machine.fit(x, y, 0)
    assert isinstance(machine, HogMachine)
    return machine


@pytest.mark.parametrize("classes", [2, 10])
def test_linear_scores_are_those_of_scikit_learn(classes):
    x, y = some_digits(classes)
    theirs = LinearSVC(C=1.0, random_state=0).fit(hog(x, 2).numpy(), y.numpy())
    scores = theirs.decision_function(hog(x, 2).numpy())
    mine = fitted(hog_linear, classes)(x)
    mine = mine[:, 1] if classes == 2 else mine
    assert np.abs(mine.numpy() - scores).max() < 1e-4


@pytest.mark.parametrize("classes", [2, 10])
def test_kernel_scores_are_those_of_scikit_learn(classes):
    x, y = some_digits(classes)
    features = hog(x, 2).half().float().numpy()
    gamma = 1 / (features.shape[1] * float(features.var()))
    mine = fitted(hog_rbf, classes)(x).numpy()
    for label in range(classes):
        theirs = SVC(C=10.0, gamma=gamma).fit(features, y.numpy() == label)
        expected = theirs.decision_function(hog(x, 2).numpy())
        assert np.abs(mine[:, label] - expected).max() < 5e-3


def test_a_kernel_machine_is_loaded_whatever_its_number_of_vectors():
    machine = fitted(hog_rbf, 10)
    other = hog_rbf(10, 1, 8, cell=2)
    other.load_state_dict(machine.state_dict())
    x = some_digits(10)[0]
    assert torch.equal(other(x), machine(x))
    assert isinstance(other, KernelMachine)
    assert 20 < len(other.support) <= 200


def test_training_by_the_command_gives_a_model_that_is_attacked_by_its_scores(
    forked_rbl, forked_refused, tmp_path
):
    recipe = ("--arch", "hog-linear", "--arch-set", "cell=2", "--data", "digits", "--n", 60)
    done = forked_rbl("train", "--out", "m.safetensors", *recipe, "--eps", 0.1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {f.name for f in tmp_path.iterdir()} == {"m.safetensors", "m.toml"}
    assert "square" in done.stdout
    model = load_model(str(tmp_path / "m.safetensors"))
    assert model.access is Access.SCORES
    clean = float((model(load_data("digits").x).argmax(1) == load_data("digits").y).double().mean())
    assert clean > 0.85
    again = forked_rbl("train", "--out", "n.safetensors", *recipe, "--eps", 0.1, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in "mn")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["digits-hog-linear", "digits-hog-rbf"])
def test_black_box_attacks_break_it_and_gradients_are_refused(name, forked_refused):
    data = load_data("digits").take(range(30))
    model = load_model(name)
    outcome = evaluate(model, load_attack("square", steps=300), Lp(Norm.LINF, 0.15), data)
    assert outcome.clean_accuracy > 0.85
    assert outcome.robust_accuracy < 0.4
    decided = evaluate(model, load_attack("rays", steps=300), Lp(Norm.LINF, 0.3), data)
    assert decided.robust_accuracy < outcome.clean_accuracy - 0.3
    said = forked_refused("attack", "--model", name, "--attack", "pgd")
    for part in ("needs gradients", "give scores only", "rays, simba, square"):
        assert part in said


def test_what_is_fitted_at_once_takes_no_defense(forked_refused):
    said = forked_refused(
        *("train", "--out", "m.safetensors", "--arch", "hog-linear", "--data", "digits"),
        *("--defense", "pgd-at", "--eps", 0.1),
    )
    assert "fitted at once" in said
    assert "leave out --defense pgd-at" in said


def test_cells_that_do_not_fit_are_refused(forked_refused):
    said = forked_refused(
        *("train", "--out", "m.safetensors", "--arch", "hog-rbf", "--data", "digits"),
        *("--arch-set", "cell=5"),
    )
    assert "cell is 5; two of them must fit in 8" in said
