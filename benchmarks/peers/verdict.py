"""Does the verdict find what others' whole evaluations find, and in how much less time?

    python verdict.py --model cifar10-resnet-at --norm linf --eps 8/255 --seeds 3
    python verdict.py --model mnist-cnn-at --eps 0.3 --contenders quick standard malt adv-lib
    python verdict.py --table        # prints what is stored

For every seed each contender of rivals.py that is named runs once, one after the other, on the same
images in one process; every claim is checked by one function on the original model. A line of
verdict.jsonl under --cells is one run. Time is that of the process's threads, so that other work on
the machine adds little. Nets that are not in the zoo are made by `rbl train --recipe nets/NAME.toml
--out NAME.safetensors`; --model takes that file.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from pathlib import Path
from typing import Any

import sheet
import subject as subjects
import torch
from rivals import EFFORTS, PEERS, Rival
from subject import Subject
from verdicts import THEIRS

from robustbench_lite.threat import Lp

_KEY = ("model", "norm", "eps", "first", "n")
_CONTENDERS = EFFORTS | PEERS


def main() -> None:
    """Measure what is missing for one model and norm, or print the table."""
    options = _options()
    if not options.table:
        subject = subjects.load(options)
        threat = subjects.ball_of(options)
        options.model = Path(options.model).stem
        missing = [name for name in options.contenders if not _CONTENDERS[name].installed]
        for name in missing:
            print(f"{name}: not installed, left out (see install.sh)")
        for seed in range(options.seeds):
            for name in options.contenders:
                if name not in missing:
                    _measure(name, _CONTENDERS[name], subject, threat, seed, options)
    _print(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument(
        "--contenders", nargs="+", choices=_CONTENDERS, default=["standard", THEIRS]
    )
    return subjects.parsed_with_ball(parser, n=500, batch=250)


def _measure(
    name: str,
    rival: Rival,
    subject: Subject,
    threat: Lp,
    seed: int,
    options: argparse.Namespace,
) -> None:
    key = {k: getattr(options, k) for k in _KEY} | {"contender": name, "seed": seed}
    if any(key.items() <= known.items() for known in sheet.cells_of(_file(options))):
        return
    right = subject.correct()
    rival.load()
    wall, cpu = time.perf_counter(), time.process_time()
    adv, told = rival.run(subject, threat, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    subject.forget()
    inside = threat.contains(subject.x, adv.clamp(0, 1))
    robust = right & ~(subject.fooled(adv) & inside)
    cell = key | {
        "correct": int(right.sum()),
        "robust": robust.nonzero().flatten().tolist(),
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "threads": torch.get_num_threads(),
        "day": datetime.date.today().isoformat(),
        "told": told,
        "version": rival.version,
    }
    sheet.add_cell(_file(options), cell)
    print(f"{name}, seed {seed}: {len(cell['robust'])} robust, {cpu:.1f} s; {told}", flush=True)


def _file(options: argparse.Namespace) -> Path:
    return Path(options.cells) / "verdict.jsonl"


def _print(options: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]] = {}
    for cell in sheet.cells_of(_file(options)):
        group = groups.setdefault(tuple(cell[k] for k in _KEY), {})
        group.setdefault(cell["contender"], {})[cell["seed"]] = cell
    rows = [
        [*map(str, key), effort, peer, *_row(group[effort], group[peer])]
        for key, group in groups.items()
        for effort in EFFORTS
        for peer in PEERS
        if group.get(effort, {}).keys() & group.get(peer, {}).keys()
    ]
    figures = ["correct", "robust", "theirs", "only ours", "only theirs", "time", "trust"]
    sheet.print_table("the verdict and its peers", [*_KEY, "effort", "peer", *figures], rows)
    print(
        "'robust', 'theirs': samples left, seed by seed; 'only ours', 'only theirs': what only one "
        "broke, seed by seed; 'time': theirs by ours, median over the seeds run on one day."
    )


def _row(ours: dict[int, dict[str, Any]], peers: dict[int, dict[str, Any]]) -> list[str]:
    seeds = sorted(ours.keys() & peers.keys())
    pairs = [(ours[s], peers[s]) for s in seeds]
    sets = [(set(a["robust"]), set(b["robust"])) for a, b in pairs]
    alike = [(a, b) for a, b in pairs if a.get("day") == b.get("day")]
    ratios = [b["cpu_seconds"] / a["cpu_seconds"] for a, b in alike]
    return [
        str(pairs[0][0]["correct"]),
        " ".join(str(len(a)) for a, _ in sets),
        " ".join(str(len(b)) for _, b in sets),
        " ".join(str(len(b - a)) for a, b in sets),
        " ".join(str(len(a - b)) for a, b in sets),
        _told(statistics.median(ratios)) if ratios else "-",
        " ".join(a["told"].partition(";")[0] for a, _ in pairs),
    ]


def _told(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 10 else 1}f}"


if __name__ == "__main__":
    main()
