"""Runs that are killed, starved, shared, split: what is stored stays, and the table is the same."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from conftest import _FORK
from kill import BENCH, Spy, check_whole, files, killed_often, lasting, start, stored, tables
from test_store import SUITE, bench, entries, samples, table, tiny
from torch import Tensor, nn

from robustbench_lite import Classifier
from robustbench_lite.errors import InputError
from robustbench_lite.executor import InProcess, Processes
from robustbench_lite.leaderboard import boards_in
from robustbench_lite.run import Contestant, Stand, entry_of, run
from robustbench_lite.store import Store
from robustbench_lite.unit import Unit

FULL = (*BENCH[:4], "--n", "60", "--slice", "15")
UNITS = 2 * 3 * 4


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def whole(here) -> Path:
    """A run that nobody disturbed."""
    code, _, stderr = start(*FULL, "--out", here / "whole", cwd=here).said()
    assert (code, stderr) == (0, "")
    assert len(stored(here / "whole")) == UNITS
    return here / "whole"


@pytest.fixture(scope="module")
def expected(whole, here) -> str:
    return board(whole, here)


def board(folder: Path, cwd: Path) -> str:
    code, stdout, stderr = start("leaderboard", folder, "--no-time", "-f", "json", cwd=cwd).said()
    assert (code, stderr) == (0, "")
    return stdout


def check_same(folder: Path, whole: Path, expected: str, cwd: Path) -> None:
    check_whole(folder)
    assert lasting(folder) == lasting(whole)
    assert board(folder, cwd) == expected


# Killed.


def test_a_run_that_is_killed_at_random_moments_loses_at_most_the_unit_at_work(tmp_path):
    figures = killed_often(tmp_path, kills=4, seed=1)
    assert figures.kills == 4
    assert figures.lost <= 4
    assert figures.begun > 0


MOMENTS = ("nothing is written", "half is written", "it is whole", "it is renamed")


@dataclass(frozen=True)
class Dies:
    """Has a process die while it writes its n-th file: at a moment that chance hardly finds."""

    moment: str
    number: int

    def __call__(self) -> None:
        shares = {MOMENTS[0]: 0.0, MOMENTS[1]: 0.5, MOMENTS[2]: 1.0}
        sync, rename, begun = os.fsync, Path.replace, 0

        def fsync(file: int) -> None:
            nonlocal begun
            begun += 1
            if begun == self.number and self.moment in shares:
                os.ftruncate(file, int(shares[self.moment] * os.fstat(file).st_size))
                os.kill(os.getpid(), signal.SIGKILL)
            sync(file)

        def replace(path: Path, target: Path) -> None:
            rename(path, target)
            if begun == self.number:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync, Path.replace = fsync, replace


def run_and_die(folder: Path, dies: Dies) -> None:
    dies()
    bench(folder, tiny(), tiny(1, "other"))


@pytest.mark.parametrize("number", [1, 2, 5], ids=["an entry", "another", "a unit"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_dies_while_it_writes_goes_on(tmp_path, moment, number):
    folder = tmp_path / "runs"
    process = _FORK.Process(target=run_and_die, args=(folder, Dies(moment, number)))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    before = stored(folder)
    found = [name for name in files(folder) if not name.endswith(".tmp")]
    assert len(found) == (number if moment == MOMENTS[3] else number - 1)
    tally = bench(folder, tiny(), tiny(1, "other"))
    assert (tally.computed, tally.found) == (8 - len(before), len(before))
    assert before.items() <= stored(folder).items()
    check_whole(folder)
    bench(tmp_path / "whole", tiny(), tiny(1, "other"))
    assert lasting(folder) == lasting(tmp_path / "whole")
    assert table(folder) == table(tmp_path / "whole")


# No room.


def limit_files(size: int) -> None:
    """No file may be larger, as where a quota ends."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def check_refused(said: tuple[int | None, str, str]) -> None:
    code, stdout, stderr = said
    assert (code, stdout) == (6, "")
    assert stderr.startswith("rbl: ")
    assert stderr.count("\n") == 1
    assert "make room or choose another folder" in stderr
    assert "Traceback" not in stderr


def test_a_unit_that_finds_no_room_ends_the_run_and_the_rest_is_sound(
    whole, expected, here, tmp_path
):
    sizes = [path.stat().st_size for path in (whole / "units").rglob("*.jsonl")]
    largest = max(path.stat().st_size for path in (whole / "entries").iterdir())
    assert largest < max(sizes)
    folder = tmp_path / "runs"
    small = partial(limit_files, max(largest, sorted(sizes)[-3]))
    check_refused(start(*FULL, "--out", folder, cwd=tmp_path, prepare=small).said())
    kept = files(folder)
    assert 2 < len(kept) < UNITS + 2
    check_whole(folder)
    assert "missing" in board(folder, here)
    code, _, stderr = start(*FULL, "--out", folder, cwd=tmp_path).said()
    assert (code, stderr) == (0, "")
    assert kept.items() <= files(folder).items()
    check_same(folder, whole, expected, here)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=64k", "none", folder):
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def mount(*arguments: object) -> int:
    if shutil.which("mount") is None:
        return 1
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode


def test_a_full_disk_and_one_that_may_only_be_read(disk, whole, expected, here, tmp_path):
    folder = disk / "runs"
    check_refused(start(*FULL, "--out", folder, cwd=tmp_path).said())
    kept = files(folder)
    assert 2 < len(kept) < UNITS + 2
    check_whole(folder)
    assert mount("-o", "remount,size=4m", disk) == 0
    code, _, stderr = start(*FULL, "--out", folder, cwd=tmp_path).said()
    assert (code, stderr) == (0, "")
    assert kept.items() <= files(folder).items()
    check_same(folder, whole, expected, here)
    assert mount("-o", "remount,ro", disk) == 0
    assert board(folder, here) == expected
    check_refused(start(*FULL, "--out", disk / "other", cwd=tmp_path).said())
    check_refused(start(*FULL, "--seed", "1", "--out", folder, cwd=tmp_path).said())
    check_refused(start("merge", whole, "--out", disk / "other", cwd=tmp_path).said())


@pytest.mark.parametrize("place", ["a file/runs", "/proc/runs", "a file"])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "a file").write_text("")
    check_refused(start(*FULL, "--out", tmp_path / place, cwd=tmp_path).said())
    assert (tmp_path / "a file").read_text() == ""


# Split.


def test_shards_that_schedulers_give_join_to_the_table_of_one_run(
    rbl, whole, expected, here, tmp_path
):
    slurm = {"ID": "5", "COUNT": "4", "MIN": "5"}
    given: list[tuple[tuple[str, ...], dict[str, str]]] = [
        ((), {f"SLURM_ARRAY_TASK_{name}": value for name, value in slurm.items()}),
        ((), {"JOB_COMPLETION_INDEX": "1", "JOB_COMPLETIONS": "4"}),
        (("--shard", "3/4"), {"RANK": "0", "WORLD_SIZE": "4"}),
    ]
    for number, (options, variables) in enumerate(given):
        one = start(*FULL, *options, "--out", tmp_path / str(number), cwd=tmp_path, **variables)
        code, stdout, stderr = one.said()
        assert (code, stderr) == (0, "")
        assert "other shards are missing" in stdout
    # A real process, with another seed of Python's hashes.
    done = rbl(*FULL, "--out", tmp_path / "3", cwd=tmp_path, RANK="3", WORLD_SIZE="4")
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(stored(tmp_path / str(number))) for number in range(4)] == [UNITS // 4] * 4
    joined = start("merge", *(tmp_path / n for n in "2013"), "--out", tmp_path / "j", cwd=tmp_path)
    assert joined.said()[0] == 0
    check_same(tmp_path / "j", whole, expected, here)
    assert tables(tmp_path / "j", tmp_path) == tables(whole, tmp_path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "-1/2", "1/0", "a/b", "1/2/3"])
def test_a_shard_that_does_not_exist_is_refused(text):
    from robustbench_lite.cli.bench import _shard

    with pytest.raises(InputError, match=r"--shard .+; (give|write)"):
        _shard(text)


def test_shard_of_a_number_beats_what_a_scheduler_says(monkeypatch):
    from robustbench_lite.cli.bench import _shard

    for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert _shard(None) == (1, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert _shard(None) == (3, 4)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert _shard(None) == (3, 4)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    assert _shard(None) == (7, 7)
    assert _shard("2/9") == (2, 9)


# Shared.


def test_two_processes_on_one_folder_share_the_work(whole, expected, here, tmp_path):
    folder = tmp_path / "runs"
    spies = [Spy(tmp_path / name) for name in ("a", "b")]
    pair = [start(*FULL, "--out", folder, cwd=tmp_path, prepare=spy) for spy in spies]
    first: dict[str, tuple[int, int, int]] = {}
    while any(one.process.is_alive() for one in pair):
        now = stored(folder)
        assert first.items() <= now.items()
        first = now
        time.sleep(0.02)
    for one in pair:
        code, stdout, stderr = one.said()
        assert (code, stderr) == (0, "")
        assert "have no result" not in stdout  # both waited for the other's units
    begun = [key for spy in spies for key in spy.seen()]
    assert all(spy.seen() for spy in spies)
    assert sorted(begun) == sorted(stored(folder))
    check_same(folder, whole, expected, here)


# Failing.


ERRORS = {error.__name__: error for error in (RuntimeError, ValueError, InputError)}


class Choosy(nn.Module):
    """Breaks down on one image, until it is mended."""

    mended = False

    def __init__(self, error: str) -> None:
        super().__init__()
        self.inner = tiny()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if not Choosy.mended and bool(self.bad(x).any()):
            raise ERRORS[self.error]("not that one")
        logits: Tensor = self.inner(x)
        return logits

    @staticmethod
    def bad(x: Tensor) -> Tensor:
        return (x[:, 0, 0, 0] - samples().x[4, 0, 0, 0]).abs() < 1e-7


class Counting(InProcess):
    """Counts how often each unit is tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: Counter[str] = Counter()

    def submit(self, unit: Unit) -> None:
        self.tried[unit.key] += 1
        super().submit(unit)


@pytest.mark.parametrize(
    ("error", "tries"), [("RuntimeError", 3), ("ValueError", 3), ("InputError", 1)]
)
def test_a_unit_that_fails_is_given_up_and_the_others_are_there(
    tmp_path, monkeypatch, error, tries
):
    model = Classifier(Choosy(error), name="choosy").eval()
    asked = [entry_of(SUITE, Contestant(model), samples())]
    bad = {unit.key for unit in asked[0].units if samples().ids[4] in unit.ids}
    counting = Counting()
    stands: list[Stand] = []
    tally = run(asked, Store(tmp_path), counting, report=stands.append)
    assert {unit.key for unit in tally.failed} == bad
    assert len(bad) == 2
    assert all("not that one" in why for why in tally.failed.values())
    assert (tally.computed, tally.found) == (2, 0)
    assert counting.tried == {u.key: tries if u.key in bad else 1 for u in asked[0].units}
    assert stored(tmp_path).keys() == {u.key for u in asked[0].units} - bad
    assert (stands[-1].done, stands[-1].total) == (4, 4)
    (found,) = boards_in(Store(tmp_path))
    assert found.rows[0].missing == 6
    assert found.rows[0].rank is None
    monkeypatch.setattr(Choosy, "mended", True)
    again = run(asked, Store(tmp_path), InProcess())
    assert (again.computed, again.found, again.failed) == (2, 2, {})


# Several processes of one run.


class Slow(nn.Module):
    """Takes its time, so that something is at work when a process is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        logits: Tensor = self.inner(x)
        return logits


def children_at_work() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            line = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if int(status[1]) == os.getpid() and b"spawn_main" in line:
            found.append(int(entry.name))
    return found


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    model = Classifier(Slow(), name="slow").eval()
    asked = entries(model)
    killed: list[int] = []

    def kill_one(stand: Stand) -> None:
        if stand.done and not killed:
            victims = children_at_work()
            assert len(victims) == 2
            killed.append(victims[0])
            os.kill(victims[0], signal.SIGKILL)

    tally = run(asked, Store(tmp_path / "killed"), Processes(2), report=kill_one)
    assert killed
    assert (tally.computed, tally.found, tally.failed) == (4, 0, {})
    check_whole(tmp_path / "killed")
    run(entries(model), Store(tmp_path / "alone"), InProcess())
    assert lasting(tmp_path / "killed") == lasting(tmp_path / "alone")
    assert table(tmp_path / "killed") == table(tmp_path / "alone")
