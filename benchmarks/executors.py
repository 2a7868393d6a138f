"""How much sooner do two workers finish than one?

    python executors.py --rounds 2 --json executors.json

Each round runs the same suite anew on a Ray cluster of this machine, one unit at a time and
two, and on one and two processes, in an order that turns. The cluster starts before the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core: the same for one and for two
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ray
from rbl_attacks.verdict import Verdict

from robustbench_lite.executor import Executor, Processes
from robustbench_lite.models import load_with_profile
from robustbench_lite.on_ray import OnRay
from robustbench_lite.registry import load_data
from robustbench_lite.run import Contestant, Entry, entry_of, run
from robustbench_lite.store import Store
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

_HOW: dict[str, Callable[[], Executor]] = {
    "ray, 1 worker": lambda: OnRay(1),
    "ray, 2 workers": lambda: OnRay(2),
    "1 process": lambda: Processes(1),
    "2 processes": lambda: Processes(2),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mnist-cnn-at", "mnist-vit"])
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--slice", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ray.init(num_cpus=2, log_to_driver=False)
    entries = [_entry(name, options.n, options.slice) for name in options.models]
    seconds: dict[str, list[float]] = {name: [] for name in _HOW}
    for number in range(options.rounds):
        turned = [*_HOW][number % len(_HOW) :] + [*_HOW][: number % len(_HOW)]
        for name in turned:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.perf_counter()
                tally = run(entries, Store(Path(folder)), _HOW[name]())
                seconds[name].append(time.perf_counter() - begun)
                assert tally.computed == sum(len(entry.units) for entry in entries)
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    for what in ("ray, {} worker{}", "{} process{}"):
        one, two = what.format(1, ""), what.format(2, "s" if "ray" in what else "es")
        ratios = [b / a for a, b in zip(seconds[one], seconds[two], strict=True)]
        print(f"{two} by {one}: {statistics.median(ratios):.2f} of the time {ratios}")
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=1))


def _entry(model: str, n: int, width: int) -> Entry:
    classifier, profile = load_with_profile(model)
    trial = Trial("verdict", Verdict(), Lp(Norm.LINF, profile.eps))
    suite = Suite("executors", {"": (trial,)}, n=n, slice=width)
    data = profile.test_data
    return entry_of(suite, Contestant(classifier, profile, model), load_data(data), data)


if __name__ == "__main__":
    main()
