"""What of an evaluation's time is not the model's: all that is neither in a forward nor a backward.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/own_share.py --model cifar10-resnet --n 1000

Both times are taken in one run, so that a machine whose pace changes does not change the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robustbench_lite import Lp, Norm, evaluate, load_attack, load_data, load_model
from robustbench_lite.classifier import Classifier

_CIFAR = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_test.npz"


class _Clock:
    """Seconds spent inside the calls that it is put around; inner calls count once."""

    def __init__(self) -> None:
        self.seconds, self._busy = 0.0, False

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **settings: Any) -> Any:
            if self._busy:
                return call(*args, **settings)
            self._busy, start = True, time.perf_counter()
            try:
                return call(*args, **settings)
            finally:
                self.seconds += time.perf_counter() - start
                self._busy = False

        return timed


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(2)
    clock = _Clock()
    Classifier.forward = clock.around(Classifier.forward)  # type: ignore[method-assign]  # timed
    torch.autograd.grad = clock.around(torch.autograd.grad)
    model = load_model(options.model).eval()
    data = load_data(options.data).take(range(options.first, options.first + options.n))
    threat = Lp(Norm.LINF, options.eps / 255)
    for name in options.attacks:
        attack = load_attack(name, steps=options.steps)
        ratios = []
        for seed in range(-1, options.repeats):
            clock.seconds, start = 0.0, time.perf_counter()
            evaluate(model, attack, threat, data, batch_size=256, seed=max(seed, 0))
            ratios.append((time.perf_counter() - start) / clock.seconds)
        told = " ".join(f"{ratio:.3f}" for ratio in ratios[1:])
        print(f"{name}, {options.model}, {options.n}: {statistics.median(ratios[1:]):.3f} ({told})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar10-resnet-at")
    parser.add_argument("--data", default=f"npz:{_CIFAR}")
    parser.add_argument("--attacks", nargs="+", default=["pgd", "apgd", "square"])
    parser.add_argument("--first", type=int, default=5000, help="number of the first image")
    parser.add_argument("--n", type=int, default=256, help="how many images")
    parser.add_argument("--eps", type=float, default=8.0, help="radius in 255ths")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5, help="runs after one to warm up")
    return parser.parse_args()


if __name__ == "__main__":
    main()
