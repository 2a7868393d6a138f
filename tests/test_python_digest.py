"""The user's own Python in every process: the same model, told apart by its source."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from likeness import images

from robustbench_lite import load_model
from robustbench_lite.identity import digest_of_model

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 3)

    def forward(self, x):
        return self.layer(x.flatten(1))

def make():
    return Net()
"""


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ASK = """
import sys
from robustbench_lite import load_model
from robustbench_lite.identity import digest_of_model
print(digest_of_model(load_model(sys.argv[1])))
"""


def asked(spec: str, folder: Path) -> str:
    command = [sys.executable, "-c", ASK, spec]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_digest_follows_the_source(tmp_path):
    net = tmp_path / "net.py"
    net.write_text(NET)
    first = digest_of_model(load_model("net.py:make"))
    assert asked("net.py:make", tmp_path) == first
    net.write_text(NET.replace("self.layer(x.flatten(1))", "2 * self.layer(x.flatten(1))"))
    assert digest_of_model(load_model("net.py:make")) != first
    net.write_text(NET)
    assert digest_of_model(load_model("net.py:make")) == first


def test_the_digest_follows_the_source_of_a_class_beside(tmp_path):
    beside = tmp_path / "beside_it.py"
    text = "from beside_it import Beside\ndef make():\n    return Beside(2, 2)\n"
    (tmp_path / "net.py").write_text(text)
    beside.write_text("from torch import nn\nclass Beside(nn.Linear):\n    factor = 1\n")
    first = asked("net.py:make", tmp_path)
    beside.write_text("from torch import nn\nclass Beside(nn.Linear):\n    factor = 2\n")
    assert asked("net.py:make", tmp_path) != first


def test_several_processes_make_the_same_model(tmp_path, rbl):
    (tmp_path / "offset_beside.py").write_text("OFFSET = 0\n")
    (tmp_path / "net.py").write_text(f"import offset_beside\n{NET}")
    x = images(4, 3, 8)
    with torch.no_grad():
        y = load_model("net.py:make")(x).argmax(1)
    np.savez(tmp_path / "d.npz", x=(x * 255).round().byte().permute(0, 2, 3, 1), y=y)
    command = ("bench", "--models", "net.py:make?num_classes=3", "--attacks", "fgsm")
    more = ("--norm", "linf", "--eps", "0.1", "--data", "npz:d.npz", "--slice", 2, "--workers")
    first = rbl(*command, *more, 2, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "100.0" in first.stdout  # of clean accuracy: both processes drew the same weights
    stored = {file.name for file in (tmp_path / "runs").rglob("*.jsonl")}
    assert len(stored) == 2
    assert rbl(*command, *more, 1, cwd=tmp_path).stdout == first.stdout
    assert {file.name for file in (tmp_path / "runs").rglob("*.jsonl")} == stored
