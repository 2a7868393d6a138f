import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import WEIGHTS, change_card

ATTACK = ("attack", "--model", "digits-cnn", "--attack", "fgsm", "--n", "20")

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3])
NAN_IMAGES = np.where(np.arange(8) == 3, np.nan, IMAGES / 255)


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": IMAGES, "y": LABELS + 7}, ["label 10", "10 classes", "0 to 9"]),
        ({"x": IMAGES, "y": LABELS - 1}, ["negative label -1"]),
        ({"x": IMAGES, "y": LABELS / 2}, ["float64", "y as integers"]),
        ({"x": IMAGES, "y": LABELS[:3]}, ["(4, 1, 8, 8)", "(3,)"]),
        ({"x": IMAGES, "y": np.array(3)}, ["(4, 1, 8, 8)", "()"]),
        ({"x": IMAGES.astype(float), "y": LABELS}, ["not 0 to 1", "divide by 255"]),
        ({"x": IMAGES / 127.5 - 1, "y": LABELS}, ["not 0 to 1", "normalisation"]),
        ({"x": NAN_IMAGES, "y": LABELS}, ["NaN", "remove or repair"]),
        ({"x": IMAGES.astype(int), "y": LABELS}, ["int64", "uint8 or as floats"]),
        ({"x": IMAGES.astype(str), "y": LABELS}, ["<U", "uint8 or as floats"]),
        ({"x": IMAGES[:, :7], "y": LABELS}, ["(1, 7, 8)", "1 x 8 x 8", "digits-cnn"]),
        ({"x": np.stack([IMAGES] * 3, -1), "y": LABELS}, ["(3, 8, 8)", "1 x 8 x 8"]),
        ({"x": IMAGES[0], "y": LABELS}, ["(8, 8)", "(N, rows, columns)"]),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, ["is empty", "at least one image"]),
        ({"images": IMAGES, "labels": LABELS}, ["images, labels", "x and y"]),
        ({"x_train": IMAGES, "y_train": LABELS}, ["x_train, y_train", "x_test and y_test"]),
        ({"x": IMAGES.astype(object), "y": LABELS}, ["cannot be read", "arrays of numbers"]),
        ({"x": IMAGES, "y": LABELS, "classes": np.array(["one"])}, ["label 3", "1 classes"]),
    ],
)
def test_arrays_that_are_no_data_for_the_model(forked_refused, tmp_path, arrays, parts):
    np.savez(tmp_path / "pictures.npz", **arrays)
    said = forked_refused(*ATTACK, "--data", "npz:pictures.npz", "--json", "out.json")
    for part in ("pictures.npz", *parts):
        assert part in said


def write_truncated(path: Path) -> None:
    np.savez_compressed(path, x=IMAGES, y=LABELS)
    path.write_bytes(path.read_bytes()[:200])


def write_flipped(path: Path) -> None:
    np.savez_compressed(path, x=IMAGES, y=LABELS)
    whole = bytearray(path.read_bytes())
    whole[100:140] = bytes(40)
    path.write_bytes(whole)


def write_one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (lambda path: None, ["does not exist", "npz:"]),
        (lambda path: path.mkdir(), ["does not exist", "npz:"]),
        (lambda path: path.write_bytes(b""), ["cannot be read", "numpy.savez"]),
        (lambda path: path.write_text("x,y\n1,2\n"), ["cannot be read", "numpy.savez"]),
        (lambda path: path.write_bytes(pickle.dumps({"x": 1})), ["cannot be read", "savez"]),
        (write_truncated, ["cannot be read", "numpy.savez"]),
        (write_flipped, ["cannot be read", "numpy.savez"]),
        (write_one_array, ["one array", "numpy.savez"]),
    ],
    ids=["missing", "folder", "empty", "text", "pickle", "truncated", "damaged", "npy"],
)
def test_a_data_file_that_cannot_be_read(forked_refused, tmp_path, write, parts):
    write(tmp_path / "pictures.npz")
    said = forked_refused(*ATTACK, "--data", "npz:pictures.npz", "--json", "out.json")
    for part in ("pictures.npz", *parts):
        assert part in said


def swap_card(model: Path) -> None:
    model.with_suffix(".toml").write_bytes((WEIGHTS / "digits-cnn-at.toml").read_bytes())


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (Path.unlink, ["model.safetensors", "does not exist", "check the path"]),
        (lambda m: m.write_bytes(m.read_bytes()[:1000]), ["model.safetensors", "not a whole"]),
        (lambda m: m.write_text("weights\n" * 9), ["model.safetensors", "not a whole"]),
        (lambda m: m.write_bytes(b""), ["model.safetensors", "not a whole"]),
        (lambda m: m.with_suffix(".toml").unlink(), ["model.toml", "rbl train writes it"]),
        (swap_card, ["model.safetensors", "sha256", "same training run"]),
        (change_card("[recipe]", "[recipe"), ["model.toml", "cannot be read", "restore it"]),
        (change_card("channels", "chanels"), ["model.toml", "channels", "correct it"]),
        (change_card("epochs", "epoch"), ["model.toml", "recipe.epoch", "correct it"]),
        (change_card("size = 8", "size = -8"), ["model.toml", "size", "not -8", "correct it"]),
        (change_card("size = 8", "size = 16"), ["model.safetensors", "does not fit its card"]),
        (change_card("width = 16", "width = -1"), ["'cnn'", "rbl show cnn"]),
        (change_card('arch = "cnn"', 'arch = "cnnn"'), ["'cnnn'", "did you mean cnn"]),
    ],
    ids=[
        "missing",
        "truncated",
        "text",
        "empty",
        "no card",
        "another card",
        "broken card",
        "misspelt",
        "misspelt in the recipe",
        "negative size",
        "wrong size",
        "impossible architecture",
        "unknown architecture",
    ],
)
def test_a_model_file_that_cannot_be_used(forked_refused, copied_model, damage, parts):
    damage(copied_model)
    said = forked_refused("attack", "-m", copied_model.name, "-a", "fgsm", "--json", "out.json")
    for part in parts:
        assert part in said


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
def test_a_pickle_is_not_opened(forked_refused, tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    (tmp_path / f"weights{suffix}").write_bytes(pickle.dumps(Trap()))
    said = forked_refused("attack", "-m", f"weights{suffix}", "-a", "fgsm")
    assert f"weights{suffix} is a pickle" in said
    assert "safetensors.torch.save_file" in said


def test_the_console_script_refuses_such_files_alike(refused, copied_model, tmp_path):
    data = tmp_path / "pictures.npz"
    np.savez(data, x=IMAGES.astype(object), y=LABELS)
    assert "pictures.npz cannot be read" in refused(*ATTACK, "--data", f"npz:{data.name}")
    copied_model.write_bytes(copied_model.read_bytes()[:1000])
    assert "not a whole" in refused("attack", "-m", copied_model.name, "-a", "fgsm")
