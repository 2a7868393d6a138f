"""The examples run as they are and print what they should."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder, *command, code=0, **environment):
    """What a command prints in `folder`, after it ended with `code`."""
    plain = {k: v for k, v in os.environ.items() if k != "CI"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=plain | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_told_of_and_is_short():
    told = (EXAMPLES / "README.md").read_text("utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f"`{script.name}`" in told
        assert len(script.read_text("utf-8").splitlines()) <= 80


def test_a_model_of_ones_own(tmp_path):
    assert run(tmp_path, EXAMPLES / "own_model.py") == (
        "clean 89.5%\n"
        "robust 61.5%, 95 % interval 54.6% to 68.0%\n"
        "trust: ok\n"
        "eps 0.0  robust 89.5%\n"
        "eps 0.05 robust 78.5%\n"
        "eps 0.1  robust 62.5%\n"
        "eps 0.2  robust 17.5%\n"
        "{0: 0.75, 1: 0.37, 2: 0.65, 3: 0.67, 4: 0.77, 5: 0.41, 6: 0.86, 7: 0.84, 8: 0.26, "
        "9: 0.59}\n"
    )


def test_an_attack_of_ones_own(tmp_path):
    assert run(tmp_path, EXAMPLES / "write_an_attack.py") == (
        "27 of 27 checks passed\n"
        "climb  robust 76.0%, 17.5 queries a sample\n"
        "pgd    robust 74.5%, 34.2 queries a sample\n"
        "fgsm   robust 79.5%, 2.0 queries a sample\n"
    )


def test_the_attack_has_15_lines():
    lines = (EXAMPLES / "write_an_attack.py").read_text("utf-8").split("\n")
    first = lines.index("class Climb(Attack):")
    last = next(
        i for i in range(first, len(lines)) if lines[i].startswith("        return Walk(threat")
    )
    code = [line for line in lines[first - 1 : last + 1] if line.strip() and '"""' not in line]
    assert len(code) <= 15


def test_a_gate_by_the_library(tmp_path):
    assert run(tmp_path, EXAMPLES / "gate_a_model.py") == (
        "pass: robust 123 of 200, now 123; drop -1.9% to +1.9%, p 1\n"
        "fail: robust 123 of 200, now 88; drop +10.2% to +24.9%, p 3.8e-06\n"
    )


def test_the_same_gate_by_pytest(tmp_path):
    shutil.copy(EXAMPLES / "gate_a_model.py", tmp_path)
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "gate_a_model.py")
    assert "a new baseline" in run(tmp_path, *command, "--rbl-update-baseline")
    assert (tmp_path / "robustness.json").is_file()
    careless = run(tmp_path, *command, code=1, IMAGES="3")
    assert "NearestMean verdict: 61.5 % -> 44.0 %, drop +10.2 to +24.9 points" in careless
    assert "48 lost, 13 gained of 200" in careless
