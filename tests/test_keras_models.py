"""Keras models: its own answers, gradients through them, and what is refused."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from likeness import check_same, images
from torch import Tensor

from robustbench_lite import InputError, Lp, Norm, evaluate, load_attack, load_model
from robustbench_lite.data import Dataset
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_with_profile


@pytest.fixture(scope="module")
def keras() -> Any:
    """As the source imports it, whoever comes first."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    os.environ.pop("KERAS_BACKEND")
    if before is not None:
        os.environ["KERAS_BACKEND"] = before
    return keras


def saved(keras: Any, path: Path, shape: tuple[int, ...], *layers: Any) -> Any:
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(shape), *layers])
    net.save(path)
    return net


def convolutional(keras: Any, path: Path, end: str = "softmax") -> Any:
    layers = keras.layers
    return saved(
        *(keras, path, (9, 8, 3)),
        layers.Conv2D(6, 3, activation="relu"),
        layers.BatchNormalization(moving_mean_initializer="ones"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(4, kernel_initializer="glorot_normal", activation=end),
    )


def own_answers(net: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(net.predict(x.permute(0, 2, 3, 1).numpy(), verbose=0))


@pytest.mark.parametrize("end", ["softmax", "linear"])
def test_answers_and_gradients_are_those_of_keras(end, keras, tmp_path):
    net = convolutional(keras, tmp_path / "net.keras", end)
    classifier, profile = load_with_profile(f"keras:{tmp_path}/net.keras")
    x = images(8, 3, 9, 8)
    torch.testing.assert_close(classifier(x).detach(), own_answers(net, x))
    if end == "linear":
        check_same(classifier, lambda x: net(x.permute(0, 2, 3, 1), training=False), x)
    told = (profile.channels, profile.classes, profile.size)
    assert told == (3, 4, 0)
    assert ("softmax" in profile.summary) == (end == "softmax")


def test_an_attack_with_gradients_breaks_it(keras, tmp_path):
    net = convolutional(keras, tmp_path / "net.keras")
    x = images(12, 3, 9, 8)
    data = Dataset(x, own_answers(net, x).argmax(1))
    classifier = load_model(f"keras:{tmp_path}/net.keras")
    outcome = evaluate(classifier, load_attack("pgd"), Lp(Norm.LINF, 0.3), data)
    assert (outcome.clean_accuracy, outcome.robust_accuracy) == (1.0, 0.0)
    found = own_answers(net, outcome.adversarials)
    assert (found.argmax(1) != data.y).all()


@pytest.mark.parametrize(
    ("scale", "setting", "factor"),
    [(1 / 255, "", 255), (1 / 127.5, "", 255), (2.0, "", 1), (2.0, "?bounds=0,255", 255)],
)
def test_models_of_bytes_get_bytes(scale, setting, factor, keras, tmp_path):
    layers = keras.layers
    path = tmp_path / "net.keras"
    net = saved(keras, path, (8, 8, 1), layers.Rescaling(scale), layers.Flatten(), layers.Dense(3))
    classifier, profile = load_with_profile(f"keras:{path}{setting}")
    x = images(4, 1, 8)
    torch.testing.assert_close(classifier(x).detach(), own_answers(net, factor * x))
    assert (profile.size, profile.channels) == (8, 1)


def test_grey_images_without_channels_and_channels_first(keras, tmp_path):
    layers = keras.layers
    x = images(4, 1, 8)
    flat = saved(keras, tmp_path / "flat.keras", (8, 8), layers.Flatten(), layers.Dense(3))
    classifier, profile = load_with_profile(f"keras:{tmp_path}/flat.keras")
    expected = torch.from_numpy(flat.predict(x[:, 0].numpy(), verbose=0))
    torch.testing.assert_close(classifier(x).detach(), expected)
    assert (profile.size, profile.channels) == (8, 1)
    first = saved(
        *(keras, tmp_path / "first.keras", (3, 8, 8)),
        layers.Conv2D(2, 3, data_format="channels_first"),
        *(layers.Flatten(), layers.Dense(3)),
    )
    x = images(4, 3, 8)
    classifier, profile = load_with_profile(f"keras:{tmp_path}/first.keras")
    expected = torch.from_numpy(first.predict(x.numpy(), verbose=0))
    torch.testing.assert_close(classifier(x).detach(), expected)
    assert (profile.size, profile.channels) == (8, 3)


def test_a_copy_has_weights_of_its_own(keras, tmp_path):
    convolutional(keras, tmp_path / "net.keras")
    classifier = load_model(f"keras:{tmp_path}/net.keras")
    x = images(3, 3, 9, 8)
    before = classifier(x)
    copied = deepcopy(classifier)
    assert torch.equal(copied(x), before)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(2)
    assert torch.equal(classifier(x), before)
    assert not torch.allclose(copied(x), before)


ASK = """
import sys
from robustbench_lite import load_model
from robustbench_lite.identity import digest_of_model
print(digest_of_model(load_model(sys.argv[1])))
"""


def test_its_digest_is_the_same_in_every_process_and_changes_with_weights(keras, tmp_path):
    spec = f"keras:{tmp_path}/net.keras"
    convolutional(keras, tmp_path / "net.keras")
    here, again = digest_of_model(load_model(spec)), digest_of_model(load_model(spec))
    there = subprocess.run(
        [sys.executable, "-c", ASK, spec],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},  # the source asks for torch
        capture_output=True,
        text=True,
        check=True,
    )
    assert {here, again, there.stdout.strip()} == {here}
    changed = load_model(spec)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    assert digest_of_model(changed) != here


def test_the_command_attacks_a_file(keras, tmp_path, forked_rbl):
    net = convolutional(keras, tmp_path / "net.keras")
    x = images(10, 3, 9, 8)
    y = own_answers(net, x).argmax(1)
    y[:2] = (y[:2] + 1) % 4
    np.savez(tmp_path / "d.npz", x=(x * 255).round().byte().permute(0, 2, 3, 1), y=y)
    done = forked_rbl(
        *("attack", "--model", "keras:net.keras", "--data", "npz:d.npz", "--attack", "pgd"),
        *("--eps", "0.5", "--json", "found.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["clean_accuracy"], found["robust_accuracy"]) == (0.8, 0.0)


def with_a_lambda(keras: Any, path: Path) -> None:
    layers = keras.layers
    saved(keras, path, (8, 8, 1), layers.Lambda(lambda x: 2 * x), layers.Flatten(), layers.Dense(3))


def with_one_row(keras: Any, path: Path) -> None:
    saved(keras, path, (64,), keras.layers.Dense(3))


def without_classes(keras: Any, path: Path) -> None:
    saved(keras, path, (8, 8, 1), keras.layers.Conv2D(3, 3))


def with_noise(keras: Any, path: Path) -> None:
    path.write_bytes(b"no archive")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (with_a_lambda, "has a Lambda layer, which is code in the file"),
        (with_one_row, r"takes inputs of shape \(None, 64\), which are no images"),
        (without_classes, r"returns \(None, 6, 6, 3\), not one row of logits an image"),
        (with_noise, "cannot be loaded .*save it again with model.save"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(write, told, keras, tmp_path):
    write(keras, tmp_path / "net.keras")
    with pytest.raises(InputError, match=told):
        load_model(f"keras:{tmp_path}/net.keras")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("keras:nowhere.keras", r"nowhere\.keras does not exist"),
        ("keras:net.h5", r"net\.h5 is not a \.keras file; load it in Keras and save"),
        ("keras:net.keras?num_classes=3", "has its number of outputs already"),
        ("keras:net.keras?weights=w.pt", "no setting .* 'weights'"),
    ],
)
def test_a_spec_that_cannot_be_is_told(spec, told):
    with pytest.raises(InputError, match=told):
        load_model(spec)


def test_another_backend_is_told(tmp_path):
    """Other backends are large to install, so a package that says it runs on one stands in."""
    (tmp_path / "net.keras").touch()
    (tmp_path / "keras.py").write_text("class config:\n    backend = lambda: 'jax'")
    done = subprocess.run(
        [sys.executable, "-c", f"import keras\n{ASK}", "keras:net.keras"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "needs Keras on torch, but Keras runs on jax already; set KERAS_BACKEND" in done.stderr
