"""A stranger's package, really installed: 15 lines and one entry point, and everything works."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "third_party" / "tiny-attack"
RBL = Path(sys.executable).parent / "rbl"


def call(command: Sequence[str | Path], env: Mapping[str, str]) -> str:
    done = subprocess.run(
        list(map(str, command)), env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a user who installed the package beside ours."""
    folder = tmp_path_factory.mktemp("third_party")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(SOURCE, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", target]
    plain = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    call([sys.executable, "-m", "pip", "install", *options, source], plain)
    assert (target / "tiny_attack.py").is_file()
    return plain | {"PYTHONPATH": str(target)}


def test_it_takes_15_lines_and_2_lines_of_pyproject() -> None:
    module = (SOURCE / "tiny_attack.py").read_text().splitlines()
    assert len(module) <= 15
    assert max(map(len, module)) <= 100
    project = (SOURCE / "pyproject.toml").read_text().splitlines()
    start = project.index('[project.entry-points."robustbench_lite.attacks"]')
    assert project[start + 1].startswith("tiny-noise")
    assert project[start + 2] == ""


def test_it_is_unknown_until_it_is_installed() -> None:
    plain = {**os.environ, "COLUMNS": "200"}
    assert "tiny-noise" not in call([RBL, "list", "attacks"], plain)


def test_the_list_shows_it(env: Mapping[str, str]) -> None:
    listed = call([RBL, "list", "attacks"], env)
    (line,) = [line for line in listed.splitlines() if "tiny-noise" in line]
    assert "Random points of the threat" in line
    assert "pgd" in listed


def test_the_command_line_runs_it(env: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = [RBL, "attack", "--model", "digits-cnn-at", "--attack", "tiny-noise"]
    shown = call([*command, "--set", "steps=5", "--n", "50", "--json", file], env)
    assert "tiny-noise" in shown
    (result,) = json.loads(file.read_text())
    assert result["n"] == 50
    assert "Noise(steps=5)" in result["attack"]
    assert 0 < result["robust_accuracy"] <= result["clean_accuracy"]
    robust = [s for s in result["samples"] if s["robust"]]
    assert {s["queries"] for s in robust} == {6}


PROGRAM = """
from robustbench_lite import load_attack
from robustbench_lite.testing import check_attack
attack = load_attack("tiny-noise")
for check in check_attack(attack):
    print(check)
    assert check.passed, check
"""


def test_it_passes_every_check(env: Mapping[str, str]) -> None:
    shown = call([sys.executable, "-c", PROGRAM], env)
    assert shown.count("ok  ") >= 20
    assert "FAIL" not in shown
