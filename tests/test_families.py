"""A model of every family in the registry, attacked from end to end through the command."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WEIGHTS
from PIL import Image

from robustbench_lite import load_data, load_model
from robustbench_lite.card import read_card

CARDS = {path.stem: read_card(path) for path in WEIGHTS.glob("*.toml")}
FAMILY = {
    "features": ("hog-linear", "hog-rbf"),
    "backpropagation": ("mlp", "cnn", "lenet", "allconv", "resnet", "wideresnet"),
    "attention": ("vit", "senet"),
    "image and text": ("clip",),
}


def attacked(rbl, folder: Path, model: str, attack: str, *arguments: object) -> dict[str, float]:
    done: subprocess.CompletedProcess[str] = rbl(
        *("attack", "--model", model, "--attack", attack, "--json", "out.json", *arguments),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((folder / "out.json").read_text())
    assert isinstance(found, dict)
    return found


def as_the_model_says(folder: Path, model: str, n: int = 24) -> str:
    """Smooth random images, labelled by the model itself: its own data are not in the package."""
    card, generator = CARDS[model], torch.Generator().manual_seed(0)
    coarse = torch.rand(n, card.channels, 7, 7, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (card.size, card.size), mode="bilinear")
    levels = (x * 255).round().byte()
    with torch.no_grad():
        labels = load_model(model)(levels / 255).argmax(1)
    np.savez(folder / "own.npz", x=levels.permute(0, 2, 3, 1).numpy(), y=labels.numpy())
    return "npz:own.npz"


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> str:
    """Some of mnist5k as an npz, which is read in no time."""
    data = load_data("mnist5k").sample(40)
    path = tmp_path_factory.mktemp("mnist") / "some.npz"
    np.savez(path, x=(data.x.permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8"), y=data.y)
    return f"npz:{path}"


def test_there_are_entries_of_all_families_and_all_three_data_sets():
    count = Counter(
        family for card in CARDS.values() for family, of in FAMILY.items() if card.recipe.arch in of
    )
    assert sum(count.values()) == len(CARDS) >= 18
    assert all(count[family] >= 2 for family in FAMILY)
    assert sum(card.recipe.init_from != "" for card in CARDS.values()) >= 2
    data = Counter(name.partition("-")[0] for name in CARDS)
    assert all(data[name] >= 2 for name in ("digits", "mnist", "cifar10"))


@pytest.mark.parametrize("model", ["mnist-vit", "mnist-senet", "mnist-lenet", "mnist-allconv"])
def test_attention_and_convolutions(forked_rbl, tmp_path, mnist, model):
    found = attacked(forked_rbl, tmp_path, model, "apgd", "--data", mnist, "--set", "steps=40")
    assert found["clean_accuracy"] > 0.9
    assert found["robust_accuracy"] < 0.15


def test_image_and_text(forked_rbl, tmp_path, mnist):
    spec = "clip:mnist-clip?prompts=someone wrote a {}"
    found = attacked(forked_rbl, tmp_path, spec, "apgd", "--data", mnist, "--set", "steps=40")
    assert found["clean_accuracy"] > 0.85
    assert found["robust_accuracy"] < 0.3


def test_gradient_histograms(forked_rbl, tmp_path, mnist):
    found = attacked(
        *(forked_rbl, tmp_path, "mnist-hog-linear", "square"),
        *("--data", mnist, "--n", 20, "--set", "steps=200"),
    )
    assert found["clean_accuracy"] > 0.9
    assert found["robust_accuracy"] < 0.2


@pytest.mark.parametrize("data", ["fashion", "gtsrb"])
def test_transfer_and_that_robust_features_stay_more_robust(forked_rbl, tmp_path, data):
    robust = {}
    for model in (f"{data}-transfer", f"{data}-transfer-at"):
        spec = as_the_model_says(tmp_path, model)
        found = attacked(forked_rbl, tmp_path, model, "pgd", "--data", spec, "--eps", "0.02")
        assert found["clean_accuracy"] == 1.0
        robust[model] = found["robust_accuracy"]
    assert robust[f"{data}-transfer"] < robust[f"{data}-transfer-at"]


@pytest.mark.parametrize("data", ["fashion", "gtsrb"])
def test_the_card_of_a_transfer_shows_the_others_beside_it(data):
    card = CARDS[f"{data}-transfer"]
    scratch, robust = card.beside[f"{data}-scratch"], card.beside[f"{data}-transfer-at"]
    assert scratch == CARDS[f"{data}-scratch"].measured
    assert robust == CARDS[f"{data}-transfer-at"].measured
    assert robust.robust_accuracy > max(scratch.robust_accuracy, card.measured.robust_accuracy)
    assert card.recipe.freeze == "backbone"


def test_the_attention_of_a_transformer_is_drawn(forked_rbl, tmp_path, mnist):
    done = forked_rbl(
        *("explain", "--model", "mnist-vit", "--attack", "pgd", "--n", 8, "--samples", 2),
        *("--data", mnist),
        *("--out", "look.png"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "look.png: attention roll-out" in done.stdout
    page = np.asarray(Image.open(tmp_path / "look.png"))
    # One colour a patch: 7 of them in a row of 128 pixels (over a faint image that is black here).
    corner = page[80:96, 170 + 3 * 138 : 170 + 3 * 138 + 16]
    assert len(np.unique(corner.reshape(-1, 3), axis=0)) == 1
