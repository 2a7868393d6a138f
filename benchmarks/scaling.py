"""Does an evaluation's time grow as its images do, and does its memory hold but the images?

    python scaling.py     # cifar10-resnet-at, PGD with 10 steps, 250 to 10,000 images

Every size runs in a process of its own, in turn; a round is all sizes. 'ratio' is the median of the
rounds' time an image by that of the least size; 'beyond images' is the highest resident memory
since the images were loaded, above what is held then, without the copies of the images that an
outcome is made of (what was searched, found and returned).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from robustbench_lite import Lp, Norm, evaluate, load_attack, load_data, load_model

_SIZES = (250, 1000, 2500, 10000)


def main() -> None:
    """All sizes, a few rounds; or one size, where --only asks for it."""
    options = _options()
    if options.only:
        print(json.dumps(_measure(options, options.only)))
        return
    rounds = []
    for _ in range(options.repeats):
        command = [sys.executable, *sys.argv, "--only"]
        rounds.append(
            [
                json.loads(
                    subprocess.run(  # this script itself
                        [*command, str(n)], check=True, capture_output=True, text=True
                    ).stdout
                )
                for n in _SIZES
            ]
        )
    print(f"{options.attack} on {options.model}, {options.repeats} rounds")
    print("  images        s  ms / image  ratio      MB  beyond images, MB")
    for i, n in enumerate(_SIZES):
        seconds = statistics.median(cells[i]["seconds"] for cells in rounds)
        ratio = statistics.median(
            cells[i]["seconds"] / n / (cells[0]["seconds"] / _SIZES[0]) for cells in rounds
        )
        peak = statistics.median(cells[i]["peak"] for cells in rounds)
        beyond = statistics.median(cells[i]["peak"] - 3 * cells[i]["images"] for cells in rounds)
        print(
            f"{n:>8} {seconds:>8.2f} {1000 * seconds / n:>11.3f} {ratio:>6.3f} {peak:>7.0f} "
            f"{beyond:>18.0f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar10-resnet-at")
    parser.add_argument("--data", default="npz:../../shared/data/cifar10_test.npz")
    parser.add_argument("--attack", default="pgd")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(options: argparse.Namespace, n: int) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    model, whole = load_model(options.model), load_data(options.data)
    some = torch.arange(n) % len(whole)
    attack = load_attack(options.attack, steps=options.steps)
    threat = Lp(Norm.LINF, options.eps)
    evaluate(model, attack, threat, whole.take(range(256)))  # kernels are made at first use
    data = whole.take(some.tolist())
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far; Linux only
    before = _megabytes("VmRSS")
    began = time.perf_counter()
    evaluate(model, attack, threat, data)
    seconds = time.perf_counter() - began
    images = data.x.numel() * data.x.element_size() / 2**20
    return {"seconds": seconds, "peak": _megabytes("VmHWM") - before, "images": images}


def _megabytes(name: str) -> float:
    """A line of the process's status: VmRSS, what it holds, or VmHWM, the most it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    main()
