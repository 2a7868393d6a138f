"""`rbl bench` is killed at random moments, again and again, and must lose nothing that it stored.

python tests/kill.py --kills 200
python tests/kill.py --million FOLDER    # fill it with a million records, to time rbl on them
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from conftest import _FORK, _environment, _main

from robustbench_lite import executor, unit
from robustbench_lite.store import Store

BENCH = ("bench", "smoke", "--models", "digits-cnn,digits-cnn-at", "--n", "60", "--slice", "10")
FORMATS = ("table", "csv", "json", "markdown")
_FORK.set_forkserver_preload(
    [
        "robustbench_lite.run",
        "robustbench_lite.registry",
        "robustbench_lite.cli.program",
        "robustbench_lite.cli.boards",
        "hypothesis",
        "pytest",  # what tests import
    ]
)


def _child(
    prepare: Callable[[], None] | None,
    arguments: list[str],
    cwd: Path,
    output: Path,
    environment: dict[str, str],
) -> None:
    if prepare is not None:
        prepare()
    _main(arguments, cwd, output, environment)


@dataclass(frozen=True)
class Started:
    """`rbl` in a process forked from one that has imported torch."""

    process: BaseProcess
    output: Path

    def said(self) -> tuple[int | None, str, str]:
        """Exit code, stdout and stderr, once it has ended."""
        self.process.join(300)
        stdout, stderr = (Path(f"{self.output}.{stream}").read_text() for stream in (1, 2))
        return self.process.exitcode, stdout, stderr


def start(
    *arguments: object,
    cwd: Path,
    prepare: Callable[[], None] | None = None,
    **environment: str,
) -> Started:
    """Start `rbl`; `prepare` is called in the new process before."""
    output = Path(tempfile.mkdtemp(prefix="output-", dir=cwd)) / "stream"
    given = (prepare, list(map(str, arguments)), cwd, output, _environment(environment))
    process = _FORK.Process(target=_child, args=given)
    process.start()
    return Started(process, output)


@dataclass(frozen=True)
class Spy:
    """Has a process write down each unit that it begins to compute."""

    log: Path

    def __call__(self) -> None:
        """Begin."""
        honest = executor.compute

        def spied(one: unit.Unit) -> bytes:
            with self.log.open("a") as file:
                file.write(one.key + "\n")
            return honest(one)

        executor.compute = spied

    def seen(self) -> list[str]:
        """The keys, in order."""
        return self.log.read_text().split() if self.log.exists() else []


def stored(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Which file each key of a unit has: the same three numbers mean that nobody touched it."""
    found = {}
    for path in (folder / "units").rglob("*.jsonl"):
        status = path.stat()
        found[path.stem] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Everything that is stored, by name."""
    every = [p for kind in ("units", "entries") for p in (folder / kind).rglob("*") if p.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in every}


def lasting(folder: Path) -> dict[str, bytes]:
    """What the clock does not decide: all but the last two lines of every file."""
    return {name: b"".join(text.splitlines(True)[:-2]) for name, text in files(folder).items()}


def check_whole(folder: Path) -> None:
    """Every file is what was written, and nothing half-written is left."""
    store = Store(folder)
    for kind in ("units", "entries"):
        for key in store.keys(kind):
            store.read(kind, key)
    left = [path.name for path in folder.rglob("*.tmp")]
    assert not left, left


def tables(folder: Path, cwd: Path) -> Mapping[str, str]:
    """What `rbl leaderboard` says, in every format."""
    texts = {}
    for style in FORMATS:
        asked = ("leaderboard", folder, "--no-time", "--format", style)
        code, stdout, stderr = start(*asked, cwd=cwd, COLUMNS="200").said()
        assert (code, stderr) == (0, ""), stderr
        assert stdout
        texts[style] = stdout
    return texts


@dataclass
class Figures:
    """What happened."""

    kills: int = 0
    early: int = 0
    lost: int = 0
    finished: int = 0
    units: int = 0
    begun: int = 0
    most_kills: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills and as many restarts in {self.finished} runs of {self.units} "
            f"units (up to {self.most_kills} kills a run, {self.early} before the first unit): "
            f"{self.lost} units were at work and are lost, {self.begun} were begun = "
            f"{self.finished} x {self.units} + {self.lost}; no stored one was touched, all tables "
            f"are equal"
        )


def killed_often(cwd: Path, kills: int, seed: int = 0, bench: Sequence[object] = BENCH) -> Figures:
    """Kill, start again, compare: see the module.

    Raises:
        AssertionError: something was lost.
    """
    whole = cwd / "whole"
    start("--help", cwd=cwd).said()  # starts what is forked from
    begin = time.monotonic()
    code, _, stderr = start(*bench, "--out", whole, cwd=cwd).said()
    longest = time.monotonic() - begin
    assert code == 0, stderr
    check_whole(whole)
    expected, content = tables(whole, cwd), lasting(whole)
    figures = Figures(units=len(stored(whole)))
    moments = random.Random(seed)
    while figures.kills < kills:
        folder = cwd / f"killed-{figures.finished}"
        here = _until_it_has_finished(folder, cwd, kills, longest, moments, figures, bench)
        figures.finished += 1
        figures.most_kills = max(figures.most_kills, here)
        check_whole(folder)
        found = lasting(folder)
        assert found.keys() == content.keys()
        assert [name for name in content if content[name] != found[name]] == []
        assert tables(folder, cwd) == expected
    assert figures.begun == figures.finished * figures.units + figures.lost
    return figures


def _until_it_has_finished(
    folder: Path,
    cwd: Path,
    kills: int,
    longest: float,
    moments: random.Random,
    figures: Figures,
    bench: Sequence[object],
) -> int:
    before: dict[str, tuple[int, int, int]] = {}
    here = 0
    while True:
        spy = Spy(folder.with_name(f"{folder.name}-{here}.begun"))
        one = start(*bench, "--out", folder, cwd=cwd, prepare=spy)
        one.process.join(moments.uniform(0, longest) if figures.kills < kills else 300)
        one.process.kill()
        code, _, stderr = one.said() if one.process.exitcode == 0 else (_ended(one), "", "")
        after, begun = stored(folder), spy.seen()
        assert before.items() <= after.items(), "a stored unit was touched"
        assert not before.keys() & set(begun), "a stored unit was computed again"
        assert len(begun) == len(set(begun))
        lost = set(begun) - after.keys()
        figures.begun += len(begun)
        figures.lost += len(lost)
        if code == 0:
            assert not lost
            assert not stderr
            return here
        assert code == -9, code
        assert len(lost) <= 1, "more was lost than what was at work"
        figures.kills += 1
        figures.early += not begun
        here += 1
        before = after


def _ended(one: Started) -> int | None:
    one.process.join(60)
    return one.process.exitcode


def a_million_records(folder: Path, models: int = 50, slices: int = 20, width: int = 1000) -> None:
    """A store of made-up records in the format of `unit.compute`: one trial, 20,000 samples."""
    chance = random.Random(0)
    store = Store(folder)
    ids = [f"{i:016x}-{i % 10}" for i in range(slices * width)]
    attack = "PGD(steps=40, step_size=0.1, loss=ce, random_start=True)"
    versions = unit.versions()
    for model in range(models):
        robust_share = 0.3 + 0.4 * model / models
        keys = []
        for part in range(slices):
            mine = ids[part * width : (part + 1) * width]
            rows, kept, correct = [], [], 0
            for sample in mine:
                label = int(sample[-1])
                row = {"id": sample, "label": label, "correct": chance.random() < 0.95}
                row["robust"] = row["correct"] and chance.random() < robust_share
                if row["correct"] and not row["robust"]:
                    row["size"] = 0.1 + 1e-8 * chance.random()
                row["queries"] = 41 if row["robust"] else chance.randrange(1, 41)
                row["backwards"] = row["queries"] - 1
                if "size" in row:
                    row |= {"attack": attack, "gap": 0.0, "reached": (label + 1) % 10}
                else:
                    row["gap"] = chance.random()
                correct += row["correct"]
                rows.append(row)
                if "size" in row and len(kept) < 4:
                    kept.append(
                        {k: row[k] for k in ("id", "label", "reached", "size")}
                        | {"image": "A" * 3000, "adversarial": "A" * 3000}
                    )
            evidence = {
                **{"n": width, "classes": 10, "correct": correct, "errors": 0, "naive": False},
                **{"randomness": "none", "probabilities": False, "apart": 10.0},
                "health": {"agreement": 0.99, "flat": 0.0, "images": 8},
                **{"blind": False, "disagreed": 0, "unverified": 0, "blindly": 0},
                **{"left": correct, "rising": 0},
            }
            lines = [
                {"format": 1, "model": f"model-{model:02}", "samples": mine},
                {"evidence": evidence, "records": width},
                *rows,
                *kept,
                {"seconds": 1.0, "versions": versions},
            ]
            keys.append(f"{model * slices + part:032x}"[::-1])
            store.write("units", keys[-1], _as_lines(lines))
        trial = {
            **{"name": "pgd", "attack": attack, "threat": "linf 0.1", "minimal": False},
            **{"steps": 40, "exactly": "0" * 32},
            "values": {"norm": "linf", "eps": 0.1, "access": "gradients", "queries": None},
        }
        told = {
            **{"format": 1, "suite": "linf", "summary": "", "data": "made-up", "n": len(ids)},
            **{"seed": 0, "precision": "float32", "slice": width, "classes": []},
            **{"trials": [trial], "model": f"model-{model:02}", "model_digest": f"{model:032x}"},
            **{"card": {"parameters": 1000}, "samples": ids, "units": [keys]},
        }
        content = _as_lines([told, {"versions": versions, "made": "2026-01-01"}])
        store.write("entries", f"{model:032x}", content)


def _as_lines(values: Sequence[object]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--million", type=Path)
    given = parser.parse_args()
    if given.million is not None:
        a_million_records(given.million)
        return
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        figures = killed_often(Path(folder), given.kills, given.seed)
        sys.stdout.write(f"{figures} ({time.monotonic() - begin:.0f} s)\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
