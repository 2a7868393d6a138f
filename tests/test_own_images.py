"""The command on the user's own images, wherever they are stored."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_images import encoded
from PIL import Image

from robustbench_lite import load_data

DIGITS = load_data("digits").sample(60)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Digits of 256 shades: as an npz, in class folders, as a csv and as a parquet file."""
    place = tmp_path_factory.mktemp("pictures")
    x = (DIGITS.x[:, 0] * 255).round().byte().numpy()
    np.savez(place / "a.npz", x=x, y=DIGITS.y.numpy())
    lines, cells = ["path,label"], []
    for i, (image, label) in enumerate(zip(x, DIGITS.y.tolist(), strict=True)):
        path = place / "all" / str(label) / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells.append(encoded(Image.fromarray(image)))
        path.write_bytes(cells[-1])
        lines.append(f"{path.relative_to(place)},{label}")
    (place / "a.csv").write_text("\n".join(lines))
    pq.write_table(pa.table({"image": cells, "label": DIGITS.y.numpy()}), place / "a.parquet")
    return place


def outcomes(run, place, *arguments) -> dict[str, tuple[bool, bool, int]]:
    asked = ("attack", "--model", "digits-cnn-at", "--attack", "fgsm", "--json", "out.json")
    done = run(*asked, *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads((place / "out.json").read_text())
    return {r["id"]: (r["correct"], r["robust"], r["queries"]) for r in outcome["samples"]}


def test_the_command_has_the_same_outcomes_of_any_source(pictures, forked_rbl, rbl):
    wanted = outcomes(forked_rbl, pictures, "--data", "npz:a.npz")
    assert len(wanted) == 60
    assert {robust for _, robust, _ in wanted.values()} == {True, False}
    assert outcomes(rbl, pictures, "--data", "folder:all") == wanted
    for data in ("csv:a.csv", "parquet:a.parquet"):
        assert outcomes(forked_rbl, pictures, "--data", data) == wanted


def test_the_command_takes_some_samples(pictures, forked_rbl):
    ids = load_data(f"npz:{pictures}/a.npz").ids
    (pictures / "some.txt").write_text("5\n0\n")
    for data in ("csv:a.csv", "npz:a.npz"):
        some = outcomes(forked_rbl, pictures, "--data", data, "--indices", "some.txt")
        assert set(some) == {ids[0], ids[5]}
    found = outcomes(forked_rbl, pictures, "--data", "folder:all", "--n", 20, "--stratified")
    labels = Counter(sample.rpartition("-")[2] for sample in found)
    for label, count in Counter(DIGITS.y.tolist()).items():
        assert abs(labels[str(label)] - count / 3) < 1


def test_the_command_takes_a_class_map(pictures, forked_rbl):
    ids = load_data(f"npz:{pictures}/a.npz").ids
    (pictures / "map.csv").write_text("3,4\n7,7\n")
    asked = ("--class-map", "map.csv", "--data", "folder:all")
    found = outcomes(forked_rbl, pictures, *asked)
    threes = [i.removesuffix("-3") + "-4" for i in ids if i.endswith("-3")]
    assert set(found) == {*threes, *(i for i in ids if i.endswith("-7"))}
    assert not any(found[i][0] for i in threes)
    assert any(correct for correct, _, _ in found.values())


NET = """
import torch
from torch import nn
from robustbench_lite import Classifier


class Brightest(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) * 100


def make():
    return Classifier(Brightest(), classes=("red", "green", "blue"))


def bare():
    return Brightest()
"""


@pytest.fixture
def colours(tmp_path) -> Path:
    """Folders of green and red images: in another order than the model's, and one class less."""
    (tmp_path / "net.py").write_text(NET)
    for name, colour in (("Green", (90, 255, 0)), ("red", (255, 90, 0))):
        (tmp_path / "in here" / name).mkdir(parents=True)
        for i in range(3):
            image = Image.new("RGB", (6, 4), (*colour[:2], i))
            image.save(tmp_path / "in here" / name / f"{i}.png")
    return tmp_path


FGSM = ("--attack", "fgsm", "--eps", "0.01", "--norm", "linf")


def test_classes_in_another_order_go_by_name(colours, forked_rbl):
    asked = ("attack", "--model", "net.py:make", "--data", "folder:in here", "--json", "out.json")
    done = forked_rbl(*asked, *FGSM, cwd=colours)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads((colours / "out.json").read_text())
    assert (outcome["clean_accuracy"], outcome["n"]) == (1.0, 6)
    assert {s["id"].rpartition("-")[2] for s in outcome["samples"]} == {"0", "1"}


def test_classes_that_fit_nothing_are_refused(colours, forked_refused):
    asked = ("attack", "--data", "folder:in here", *FGSM)
    said = forked_refused(*asked, "--model", "net.py:bare", "--num-classes", 3)
    assert "has 2 classes (Green, red), but the model has 3 without names; say which" in said
    (colours / "in here" / "Green").rename(colours / "in here" / "grass")
    said = forked_refused(*asked, "--model", "net.py:make")
    assert "the model has no class called 'grass'" in said
    assert "say which is which with --class-map" in said
