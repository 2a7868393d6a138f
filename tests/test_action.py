"""The GitHub action, its steps really run in bash; the GitLab snippet; the pre-commit hooks."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DOCS = (ROOT / "docs" / "ci.md").read_text()
INSTALL, CHECK = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what GitHub makes of `shell: bash`
Done = tuple[subprocess.CompletedProcess[str], dict[str, str], str]
Run = Callable[..., Any]
N = 120


def step(which: dict[str, Any], cwd: Path, first: Path | None = None, **inputs: str) -> Done:
    """Run a step as GitHub does, with a file for its outputs and one for the job's summary.

    The job's Python is the one that runs the tests. Nothing is installed, since the package is
    there: the installing step runs with a `python` that only tells its arguments, in `first`.
    """
    assert inputs.keys() <= ACTION["inputs"].keys()
    values = {f"inputs.{name}": told["default"] for name, told in ACTION["inputs"].items()}
    values |= {f"inputs.{name}": value for name, value in inputs.items()}
    values["github.action_path"] = "/somewhere/the action"
    runner = cwd / "runner temp"
    runner.mkdir(exist_ok=True)
    script, output, summary = (runner / name for name in ("step.sh", "output", "summary.md"))
    script.write_text(which["run"])
    output.write_text("")
    summary.write_text("")
    path = [str(first)] if first else []
    environment = {
        "PATH": os.pathsep.join([*path, str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(cwd),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        "RUNNER_TEMP": str(runner),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    environment |= {
        name: EXPRESSION.sub(lambda found: values[found[1]], text)
        for name, text in which["env"].items()
    }
    done = subprocess.run(
        [*SHELL, script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return done, told, summary.read_text()


@pytest.fixture(scope="module")
def place(rbl: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a baseline of digits-cnn-at."""
    folder = tmp_path_factory.mktemp("action")
    making = ("-m", "digits-cnn-at", "-b", "the b.json", "--reason", "first", "--n", N)
    done = rbl("baseline", "update", *making, cwd=folder, CI="")
    assert done.returncode == 0, done.stderr
    return folder


def test_no_expression_becomes_part_of_a_script() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for one in ACTION["runs"]["steps"]:
        assert one["shell"] == "bash"
        assert "${{" not in one["run"]
        assert all(EXPRESSION.fullmatch(value) for value in one["env"].values())


def test_every_input_is_used_and_every_output_is_set() -> None:
    found = [EXPRESSION.fullmatch(v) for s in (INSTALL, CHECK) for v in s["env"].values()]
    used = {match[1] for match in found if match}
    assert used == {f"inputs.{name}" for name in ACTION["inputs"]} | {"github.action_path"}
    for name, output in ACTION["outputs"].items():
        assert output["value"] == f"${{{{ steps.{CHECK['id']}.outputs.{name} }}}}"
        assert f'echo "{name}=${name}"' in CHECK["run"]


@pytest.mark.parametrize(
    ("version", "told"),
    [("", "/somewhere/the action"), ("0.1.0", "robustbench-lite==0.1.0"), ("$(pwd)", None)],
)
def test_what_is_installed(tmp_path: Path, version: str, told: str | None) -> None:
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    done, _, _ = step(INSTALL, tmp_path, stub.parent, version=version)
    assert done.returncode == 0, done.stderr
    wanted = told or "robustbench-lite==$(pwd)"
    assert done.stdout.splitlines() == ["-m", "pip", "install", wanted]


def test_a_model_as_robust_as_its_baseline(place: Path) -> None:
    asked = {"baseline": "the b.json", "arguments": "--margin 3pt"}  # 2 need 133 samples
    done, outputs, summary = step(CHECK, place, model="digits-cnn-at", **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs["answer"] == "pass"
    assert json.loads(Path(outputs["json"]).read_text())["answer"] == "pass"
    assert ElementTree.parse(outputs["junit"]).getroot().find("testsuite") is not None
    assert summary.startswith("### Robustness: PASS\n")
    assert "::error" not in done.stdout


def test_a_model_that_is_less_robust(place: Path) -> None:
    done, outputs, summary = step(CHECK, place, model="digits-cnn", baseline="the b.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert outputs["answer"] == "fail"
    told = json.loads(Path(outputs["json"]).read_text())
    assert told["answer"] == "fail"
    assert told["checks"][0]["model"] == "digits-cnn"
    assert summary.startswith("### Robustness: FAIL\n")
    assert "::error title=robustness::digits-cnn verdict: " in done.stdout


def test_a_file_of_checks_and_further_arguments(place: Path) -> None:
    """Two lines of arguments, one of which would be a pattern of files for a shell."""
    text = '[[checks]]\nmodel = "digits-cnn-at"\nbaseline = "the b.json"\n'
    (place / "the checks.toml").write_text(text)
    more = "--max-samples 20\n  --on-inconclusive fail --trend *.json\n"
    done, outputs, _ = step(CHECK, place, config="the checks.toml", arguments=more)
    assert done.returncode == 4, done.stdout + done.stderr
    assert outputs["answer"] == "inconclusive"
    assert (place / "*.json").is_file()


def test_no_answer(place: Path) -> None:
    done, outputs, summary = step(CHECK, place, model="digits-cnn", baseline="none.json")
    assert done.returncode == 5
    assert outputs == {"answer": "error", "json": "", "junit": ""}
    assert summary == "### Robustness: no answer (exit code 5); the log tells why\n"
    assert "none.json does not exist" in done.stderr


def test_figures_that_cannot_be_trusted_are_no_answer(place: Path) -> None:
    """A stub that ends as rbl does then: with all files and exit code 3."""
    stub = place / "bin" / "rbl"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho \'{"answer": "pass"}\' > "$3"\nexit 3\n')
    stub.chmod(0o755)
    done, outputs, _ = step(CHECK, place, stub.parent, model="m", baseline="b")
    assert done.returncode == 3
    assert outputs["answer"] == "error"
    assert outputs["json"]


def test_an_input_runs_no_command(tmp_path: Path) -> None:
    evil = "\"; touch evil; $(touch evil) `touch evil` '; touch evil #"
    for which in (INSTALL, CHECK):
        stub = tmp_path / "bin" / "python"
        stub.parent.mkdir(exist_ok=True)
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
        step(which, tmp_path, stub.parent, **dict.fromkeys(ACTION["inputs"], evil))
    assert not (tmp_path / "evil").exists()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.M | re.S)


def test_the_documented_workflow_gives_inputs_that_exist() -> None:
    workflow = yaml.safe_load(blocks("yaml")[0])
    (uses,) = [
        one
        for one in workflow["jobs"]["robustness"]["steps"]
        if "/robustbench-lite@" in one.get("uses", "")
    ]
    assert uses["with"].keys() <= ACTION["inputs"].keys()
    assert uses["id"] == "robustness"
    for name in [*ACTION["inputs"], *ACTION["outputs"]]:
        assert f"`{name}`" in DOCS


def test_documented_commands_have_options_that_exist() -> None:
    from typer.main import get_command

    from robustbench_lite.cli.program import app

    gitlab = yaml.safe_load(blocks("yaml")[1])["robustness"]
    action = yaml.safe_load(blocks("yaml")[0])["jobs"]["robustness"]["steps"][3]
    lines = blocks("bash")[0].replace("\\\n", " ").splitlines() + gitlab["script"]
    lines.append("rbl check " + action["with"]["arguments"])
    commands = [shlex.split(line) for line in lines if line.startswith("rbl ")]
    assert len(commands) == 4
    for _, *words in commands:
        command: Any = get_command(app)
        while words and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
    reports = gitlab["artifacts"]["reports"].values()
    assert set(commands[2]) >= {*reports, *gitlab["artifacts"]["paths"]}


def test_the_documented_tests_are_python() -> None:
    (text,) = blocks("python")
    compile(text, "docs/ci.md", "exec")


def test_the_hooks(place: Path, rbl: Run) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["rbl-check", "rbl-check-system"]
    assert f"- id: {hooks[1]['id']}\n" in blocks("yaml")[2]
    (place / "rbl.toml").write_text('[[checks]]\nmodel = "digits-cnn"\nbaseline = "the b.json"\n')
    for hook in hooks:
        assert not hook["pass_filenames"]
        triggers = [
            f for f in ("a/m.safetensors", "rbl.toml", "m.py") if re.search(hook["files"], f)
        ]
        assert triggers == ["a/m.safetensors", "rbl.toml"]
    command, *arguments = hooks[1]["entry"].split()
    assert command == "rbl"
    assert rbl(*arguments, cwd=place).returncode == 1
