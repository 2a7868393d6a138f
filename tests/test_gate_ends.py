"""How a gate ends for a net that has been trained on, and when it is interrupted."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
from pathlib import Path

import pytest
import torch
from conftest import WEIGHTS
from safetensors.torch import save_file
from torch.nn import functional

from robustbench_lite.data import Split
from robustbench_lite.models import load_model
from robustbench_lite.registry import load_data


@pytest.fixture(scope="module")
def place(rbl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ends")
    update = ("baseline", "update", "-m", "digits-cnn-at", "-b", "b.json", "--reason", "r")
    done = rbl(*update, "--n", 400, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def trained_on(folder: Path, steps: int) -> str:
    """digits-cnn-at after some steps on clean images: as accurate, and less robust."""
    torch.manual_seed(0)
    model = load_model("digits-cnn-at").model
    data = load_data("digits", Split.TRAIN)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        index = torch.randint(len(data), (128,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(model(data.x[index]), data.y[index]).backward()
        optimizer.step()
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    save_file(state, folder / "tuned.safetensors")
    card = (WEIGHTS / "digits-cnn-at.toml").read_text()
    old = next(line for line in card.splitlines() if line.startswith("sha256 = "))
    digest = hashlib.sha256((folder / "tuned.safetensors").read_bytes()).hexdigest()
    (folder / "tuned.toml").write_text(card.replace(old, f'sha256 = "{digest}"'))
    return "tuned.safetensors"


def test_a_little_training_on_clean_images_fails(forked_rbl, place: Path) -> None:
    model = trained_on(place, 40)
    done = forked_rbl("check", "-m", model, "-b", "b.json", cwd=place)
    clean, robust = (line.split() for line in done.stdout.splitlines()[2:4])
    assert done.returncode == 1, done.stdout
    assert abs(float(clean[2]) - float(clean[3])) < 3  # in clean accuracy there is hardly a trace
    assert 4 < float(robust[2]) - float(robust[3]) < 40
    assert robust[-1] == "fail"


def test_ctrl_c_during_a_check(start_rbl, place: Path) -> None:
    terminal, theirs = pty.openpty()
    check = ("check", "-m", "digits-cnn-at", "-b", "b.json", "--time-limit", "1h", "--json", "j")
    process = start_rbl(*check, cwd=place, stderr=theirs, COLUMNS="80")
    os.close(theirs)
    seen = b""
    while b" of 400" not in seen:  # the bar, after the first look
        seen += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    while b"interrupted" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ""
    process.stdout.close()
    assert not (place / "j").exists()
