"""Whatever a file holds, a reader reads it or says in one sentence why it cannot."""

import contextlib
import io
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from robustbench_lite import Access, load_model
from robustbench_lite.baseline import read_baseline
from robustbench_lite.card import read_card
from robustbench_lite.cli.check import _asked
from robustbench_lite.cli.lesson import recipe_of
from robustbench_lite.errors import RblError
from robustbench_lite.export import exported
from robustbench_lite.models import weights_of
from robustbench_lite.suite_file import read_suite
from robustbench_lite.weights import read_weights

SUITE = """name = "mine"
data = "digits"
[[trials]]
attack = "pgd"
norm = "linf"
eps = 0.1
"""
CHECKS = '[gate]\nmargin = "2pt"\n[[checks]]\nmodel = "digits-cnn"\nbaseline = "b.json"\n'
BASELINE = '{"format": 1, "model": "m", "data": "digits", "seed": 0, "n": 1, "trials": []}'
READERS = {
    "card.toml": read_card,
    "suite.toml": read_suite,
    "rbl.toml": lambda path: _asked(None, None, path),
    "recipe.toml": lambda path: recipe_of(path, {}),
    "baseline.json": read_baseline,
    "weights.safetensors": read_weights,
    "weights.pt": read_weights,
    "net.onnx": lambda path: load_model(f"onnx:{path}"),
    "net.ts": lambda path: load_model(f"torchscript:{path}"),
    "net.pt2": lambda path: load_model(f"exported:{path}"),
    "net.skops": lambda path: load_model(f"sklearn:{path}"),
}


def as_torch_saves(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def sound():
    """A file that each reader can read, or nearly so."""
    pytest.importorskip("onnxscript")
    model, state = load_model("digits-cnn"), {"a": torch.zeros(3)}
    card = weights_of("digits-cnn").with_suffix(".toml").read_bytes()
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {f"net.{k}": exported(model, (1, 8, 8), f".{k}") for k in ("onnx", "ts", "pt2")}
    return made | {
        "card.toml": card,
        "recipe.toml": card,
        "suite.toml": SUITE.encode(),
        "rbl.toml": CHECKS.encode(),
        "baseline.json": BASELINE.encode(),
        "weights.safetensors": save(state),
        "weights.pt": as_torch_saves(state),
        "net.skops": b"PK\x03\x04",
    }


def test_what_is_sound_is_read(sound, tmp_path):
    for name in READERS.keys() - {"baseline.json", "net.skops"}:
        file = tmp_path / name
        file.write_bytes(sound[name])
        read = READERS[name](file)
        if name.startswith("net."):
            assert read.access is Access.GRADIENTS


DEEP = b"a = " + b"[" * 20_000


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=40), st.floats(0, 1), st.booleans())
@example("card.toml", DEEP, 0, False)
@example("suite.toml", DEEP, 0, False)
@example("rbl.toml", DEEP, 0, False)
@example("recipe.toml", DEEP, 0, False)
@example("baseline.json", DEEP[4:], 0, False)
@example("rbl.toml", b"gate = 3\n", 0, False)
@example("rbl.toml", b"[[gate]]\n", 0, False)
@example("rbl.toml", b"checks = [1]\n", 0, False)
@example("recipe.toml", b"recipe = 1\n", 0, False)
@example("card.toml", b"\xff", 0, False)
def test_any_bytes(sound, tmp_path: Path, name, noise, at, keep):
    whole = sound[name]
    start = int(at * len(whole))
    file = tmp_path / name
    file.write_bytes(whole[:start] + noise + (whole[start + len(noise) :] if keep else b""))
    with contextlib.suppress(RblError):
        READERS[name](file)
