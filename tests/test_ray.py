"""Units on a real Ray cluster of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from rbl_attacks.pgd import PGD

from robustbench_lite.data import Dataset
from robustbench_lite.executor import InProcess
from robustbench_lite.models import load_with_profile
from robustbench_lite.on_ray import OnRay
from robustbench_lite.registry import load_data
from robustbench_lite.run import Contestant, Entry, Stand, entry_of, run
from robustbench_lite.store import Store
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

SUITE = Suite(
    "ray", {"": (Trial("pgd", PGD(steps=40), Lp(Norm.LINF, 0.1)),)}, n=160, slice=20, seed=5
)


def entries() -> list[Entry]:
    made = []
    for name in ("digits-cnn", "digits-cnn-at"):
        classifier, profile = load_with_profile(name)
        contestant = Contestant(classifier, profile, name)
        made.append(entry_of(SUITE, contestant, load_data("digits"), "digits"))
    return made


def lasting(folder: Path) -> dict[str, bytes]:
    """What is stored, without the clock and the seal over it."""
    return {
        f.name: b"".join(f.read_bytes().splitlines(keepends=True)[:-2])
        for f in folder.rglob("*.json*")
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    run(entries(), Store(folder), InProcess())
    return folder


def busy() -> list[int]:
    """Processes of Ray's that have a unit in hand."""
    shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [int(s.split()[0]) for s in shown.stdout.splitlines() if "ray::attempted" in s]


def test_a_worker_killed_in_the_middle_changes_nothing(cluster, local, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(stand: Stand) -> None:
        if stand.done >= 3 and not killed and (at_work := busy()):
            os.kill(at_work[0], signal.SIGKILL)
            killed.append(at_work[0])

    executor = OnRay()
    assert executor.slots == 2
    tally = run(entries(), Store(tmp_path), executor, report=kill_one)
    assert killed
    assert (tally.computed, tally.found, tally.failed) == (16, 0, {})
    assert lasting(tmp_path) == lasting(local)
    assert ray.is_initialized()  # who started it goes on with it


def test_what_a_unit_raises_is_its_result(cluster, tmp_path: Path) -> None:
    classifier, profile = load_with_profile("digits-cnn")
    data = load_data("digits")
    (entry,) = [entry_of(SUITE, Contestant(classifier, profile, "digits-cnn"), data, "mnist5k")]
    tally = run([entry], Store(tmp_path), OnRay())
    assert tally.computed == 0
    assert len(tally.failed) == 8
    assert all("has no sample" in why for why in tally.failed.values())


def test_a_classifier_that_is_no_file_is_sent(cluster, tmp_path: Path) -> None:
    classifier, _ = load_with_profile("digits-cnn")
    data = load_data("digits")
    some = Dataset(data.x[:20], data.y[:20], "some")
    entry = entry_of(SUITE, Contestant(classifier), some)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    run([entry], here, InProcess())
    run([entry], there, OnRay())
    assert lasting(here.folder) == lasting(there.folder)
    assert len(lasting(here.folder)) == 2


def test_the_command_gives_the_same_table(rbl, tmp_path: Path) -> None:
    bench = ("bench", "smoke", "--models", "digits-cnn,digits-cnn-at")
    for out, how in (("a", ()), ("b", ("--executor", "ray", "--workers", 2))):
        done = rbl(*bench, "--out", out, *how, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    tables = [
        rbl("leaderboard", out, "--format", "csv", "--no-time", cwd=tmp_path).stdout
        for out in ("a", "b")
    ]
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == 3


def test_without_ray_the_remedy_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; from robustbench_lite.cli import main; "
        "sys.argv = ['rbl', 'bench', 'smoke', '-m', 'digits-cnn', '--executor', 'ray']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "pip install 'robustbench-lite[ray]'" in done.stderr
    assert not (tmp_path / "runs").exists()
