import os
import pty
import re
import signal
from pathlib import Path

import pytest

LONG = ("attack", "--model", "digits-cnn-at", "--attack", "pgd", "--set", "steps=1000000")
OUTPUTS = ("--json", "out.json", "--save-adversarials", "out.npz")
SAID = "rbl: interrupted; nothing was written\n"

INTERRUPTS_ITSELF = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "module", ["typer", "torch", "torch._C", "torch.storage", "torch.nn", "pandas"]
)
def test_ctrl_c_during_the_imports(start_rbl, tmp_path, tmp_path_factory, module):
    # Python runs sitecustomize before anything else; this one sends the signal at an exact point.
    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(INTERRUPTS_ITSELF)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = start_rbl(*LONG, *OUTPUTS, cwd=tmp_path, PYTHONPATH=path, INTERRUPT_AT=module)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout, stderr) == (130, "", SAID)
    assert not any(tmp_path.iterdir())


def read_until(terminal: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        seen += os.read(terminal, 4096)
    return seen


def read_to_the_end(terminal: int) -> str:
    seen = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # Linux's end of a terminal
            more = b""
        if not more:
            return seen.decode()
        seen += more


def test_ctrl_c_while_the_attack_shows_its_progress(start_rbl, tmp_path):
    terminal, theirs = pty.openpty()
    process = start_rbl(*LONG, *OUTPUTS, cwd=tmp_path, stderr=theirs, COLUMNS="100")
    os.close(theirs)
    read_until(terminal, b"robust so far")
    process.send_signal(signal.SIGINT)
    rest = read_to_the_end(terminal)
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ""
    process.stdout.close()
    assert rest.endswith("\x1b[?25h" + SAID.replace("\n", "\r\n"))  # with the cursor shown again
    assert "Traceback" not in rest
    assert not any(tmp_path.iterdir())


def test_ctrl_c_during_training_keeps_the_checkpoint(start_rbl, tmp_path):
    process = start_rbl(
        *("train", "--out", "new.safetensors", "--arch", "cnn", "--data", "digits"),
        *("--epochs", "100000"),
        cwd=tmp_path,
    )
    first = process.stderr.readline()
    assert first.startswith("new: epoch 1 of 100000, loss ")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == (
        "rbl: interrupted; new.checkpoint is kept, the same command goes on from it"
    )
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == [Path(tmp_path / "new.checkpoint")]


def test_ctrl_c_during_a_benchmark_keeps_what_is_done(start_rbl, forked_rbl, tmp_path):
    bench = ("bench", "smoke", "--models", "digits-cnn", "--slice", 1, "--n", 40)
    terminal, theirs = pty.openpty()
    process = start_rbl(*bench, cwd=tmp_path, stderr=theirs, COLUMNS="100")
    os.close(theirs)
    read_until(terminal, b" of 120 units")
    process.send_signal(signal.SIGINT)
    rest = read_to_the_end(terminal)
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ""
    process.stdout.close()
    told = re.search(r"rbl: interrupted; (\d+) units are stored; start again to go on\r\n$", rest)
    assert told, rest
    stored = list(tmp_path.glob("runs/units/*/*.jsonl"))
    assert len(stored) - int(told[1]) in (0, 1)  # one may have been written and not yet told
    before = {f: f.stat().st_mtime_ns for f in stored}
    done = forked_rbl(*bench, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f.stat().st_mtime_ns == t for f, t in before.items())
    assert len(list(tmp_path.glob("runs/units/*/*.jsonl"))) == 120
