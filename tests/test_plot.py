"""Pictures from the shell, of really attacked nets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODELS = ("digits-cnn", "digits-cnn-at")


@pytest.fixture(scope="module")
def runs(rbl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    few = ("--n", 12, "--slice", 12)
    suites = {
        "smoke": ("smoke",),
        "blackbox": ("blackbox", *few),
        "fixed": ("--attacks", "fgsm", *few),
    }
    for name, suite in suites.items():
        done = rbl("bench", *suite, "--out", name, "--models", ",".join(MODELS), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def drawn(run, folder: Path, what: str, store: str, out: str, *more: object) -> bytes:
    done = run("plot", what, store, "--out", out, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    return (folder / out).read_bytes()


@pytest.mark.parametrize(
    ("what", "store", "more"),
    [
        ("curve", "smoke", ()),
        ("queries", "blackbox", ()),
        ("classes", "smoke", ()),
        ("confusion", "smoke", ("--models", "digits-cnn")),
    ],
)
def test_a_chart_has_a_mark_for_what_it_shows(forked_rbl, runs, what, store, more) -> None:
    text = drawn(forked_rbl, runs, what, store, f"{what}.svg", *more).decode()
    assert text.startswith("<svg")
    if what != "confusion":
        for model in MODELS:
            assert f">{model}<" in text
    if what in ("curve", "queries"):
        assert len(re.findall(r'<path aria-label="[^"]*" role="graphics-symbol"', text)) >= 2
        assert ">robust accuracy<" in text
    if what == "confusion":
        assert ">true class<" in text
        assert ">class reached<" in text


def test_a_picture_can_be_opened(forked_rbl, runs) -> None:
    drawn(forked_rbl, runs, "curve", "smoke", "c.png")
    with Image.open(runs / "c.png") as picture:
        assert min(picture.size) > 400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert drawn(forked_rbl, runs, "curve", "smoke", "c.pdf").startswith(b"%PDF")


def test_a_gallery_shows_examples_of_each_model(forked_rbl, runs) -> None:
    drawn(forked_rbl, runs, "gallery", "smoke", "g.png")
    drawn(forked_rbl, runs, "gallery", "smoke", "one.png", "--models", "digits-cnn")
    with Image.open(runs / "g.png") as both, Image.open(runs / "one.png") as one:
        assert both.tobytes() != one.tobytes()
        assert len(np.unique(np.asarray(both.convert("L")))) > 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("curve", "fixed", "-o", "x.png"), "it takes an attack that shrinks perturbations"),
        (("queries", "smoke", "-o", "x.png"), "it takes an attack without gradients"),
        (("confusion", "smoke", "-o", "x.png"), "a confusion is of one model; name it"),
        (("curve", "smoke", "-o", "x.gif"), "end it in .png, .svg or .pdf"),
        (("gallery", "smoke", "-o", "x.svg"), "end it in .png or .pdf"),
        (("curve", "smoke", "-o", "x.png", "-m", "nobody"), "'nobody' has no row"),
        (("curve", "smoke", "-o", "gone/x.png"), "the folder gone does not exist"),
        (("hologram", "smoke", "-o", "x.png"), "'hologram'"),
    ],
)
def test_what_cannot_be_drawn_is_told(forked_rbl, runs, arguments, told) -> None:
    before = {f.name for f in runs.iterdir()}
    done = forked_rbl("plot", *arguments, cwd=runs)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {f.name for f in runs.iterdir()} == before
