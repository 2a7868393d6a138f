"""The console script as a user runs it: a real process, with a plain environment."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# What continuous-integration services set: rich and typer draw and the gate behaves otherwise.
_OF_SERVICES = {
    *("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"),
    *("COLUMNS", "LINES", "FORCE_COLOR", "PY_COLORS", "TERM"),
}
WEIGHTS = Path(__file__).parent.parent / "robustbench_lite" / "zoo" / "weights"

Rbl = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]
StartRbl = Callable[..., subprocess.Popen[str]]


def _environment(changes: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in _OF_SERVICES}
    return kept | {"OMP_WAIT_POLICY": "PASSIVE", "TERM": "xterm", "NO_COLOR": "1"} | changes


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [str(Path(sys.executable).with_name("rbl")), *map(str, arguments)]


@pytest.fixture(scope="session")
def rbl() -> Rbl:
    """`rbl(*arguments, cwd=..., **environment)` runs the command to its end."""

    def run(
        *arguments: object, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _command(arguments),
            capture_output=True,
            text=True,
            cwd=cwd,
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )

    return run


_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    [
        "robustbench_lite.judge",
        "robustbench_lite.registry",
        "robustbench_lite.cli.program",
        "robustbench_lite.cli.screen",
    ]
)


def _main(arguments: list[str], cwd: Path, output: Path, environment: dict[str, str]) -> None:
    from robustbench_lite.cli import main

    for stream in (1, 2):
        os.dup2(os.open(f"{output}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["rbl", *arguments]
    main()


@pytest.fixture
def forked_rbl(tmp_path_factory: pytest.TempPathFactory) -> Rbl:
    """As `rbl`, in a process forked from one that has imported torch: a tenth of the time."""

    def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        output = tmp_path_factory.mktemp("output") / "stream"
        texts = list(map(str, arguments))
        given = (texts, cwd, output, _environment(environment))
        process = _FORK.Process(target=_main, args=given)
        process.start()
        process.join(300)
        assert process.exitcode is not None
        said = (Path(f"{output}.{stream}").read_text() for stream in (1, 2))
        return subprocess.CompletedProcess(texts, process.exitcode, *said)

    return run


@pytest.fixture
def start_rbl() -> StartRbl:
    """`start_rbl(*arguments, cwd=..., stderr=..., **environment)` starts it; SIGINT reaches it."""

    def start(
        *arguments: object, cwd: Path, stderr: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            _command(arguments),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=cwd,
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            # A runner in the background ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture
def copied_model(tmp_path: Path) -> Path:
    """A copy of digits-cnn to be damaged: `model.safetensors` with `model.toml` beside it."""
    target = tmp_path / "model.safetensors"
    shutil.copy(WEIGHTS / "digits-cnn.safetensors", target)
    shutil.copy(WEIGHTS / "digits-cnn.toml", target.with_suffix(".toml"))
    return target


def change_card(old: str, new: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        card = model.with_suffix(".toml")
        text = card.read_text()
        assert old in text
        card.write_text(text.replace(old, new, 1))

    return change


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refusal(run: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> Refused:
    """Runs rbl in the folder, checks how it refuses, and returns its sentence."""

    def check(*arguments: object, **environment: str) -> str:
        before = contents(folder)
        done = run(*arguments, cwd=folder, **environment)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert re.fullmatch(r"rbl: .+\n", done.stderr), done.stderr
        assert contents(folder) == before
        return done.stderr

    return check


@pytest.fixture
def refused(rbl, tmp_path) -> Refused:
    return refusal(rbl, tmp_path)


@pytest.fixture
def forked_refused(forked_rbl, tmp_path) -> Refused:
    return refusal(forked_rbl, tmp_path)


@pytest.fixture
def stub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of tests/stub_library.py, as if it were installed."""
    from stub_library import Behaviour

    monkeypatch.setitem(sys.modules, "behaviour_of_a_library", Behaviour("behaviour_of_a_library"))
