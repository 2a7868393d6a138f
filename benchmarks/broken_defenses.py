"""Defenses that hide the gradient, attacked without and with knowledge of them.

    python benchmarks/broken_defenses.py            # prints the table in the README

PGD with 100 steps on MNIST nets without adversarial training, Linf 0.1. 'naive' attacks with the
defense's own gradient where it has one, and takes one draw where it is random; 'aware' is what
`rbl attack` does unless `--naive` is given.
"""

from __future__ import annotations

import argparse

import torch

from robustbench_lite import Lp, Norm, Outcome, evaluate, load_attack, load_data, load_model

MODELS = (
    "mnist-cnn",
    "mnist-cnn+jpeg?quality=50",
    "mnist-cnn+bit-depth?bits=3",
    "mnist-cnn+gaussian-noise?sigma=0.4",
    "mnist-cnn+random-resize-pad?smallest=0.6",
    "mnist-cnn-thermometer",
    "mnist-cnn-kwta",
    "mnist-cnn-distilled",
)


def main() -> None:
    """Attack every model twice and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="images")
    parser.add_argument("--eps", type=float, default=0.1, help="Linf radius")
    parser.add_argument("--steps", type=int, default=100, help="of PGD")
    options = parser.parse_args()
    torch.set_num_threads(2)
    data, threat = load_data("mnist5k").sample(options.n), Lp(Norm.LINF, options.eps)
    attack = load_attack("pgd", steps=options.steps)
    print(f"{attack}, Linf {options.eps:g}, {data.name}, {len(data)} images, seed 0\n")
    print("| model | clean % | naive robust % | aware robust % |\n|---|---:|---:|---:|")
    for name in MODELS:
        aware = evaluate(load_model(name), attack, threat, data)
        naive = "-"
        if name != MODELS[0]:
            naive = _share(evaluate(load_model(name, naive=True), attack, threat, data))
        print(
            f"| `{name}` | {100 * aware.clean_accuracy:.1f} | {naive} | {_share(aware)} |",
            flush=True,
        )


def _share(outcome: Outcome) -> str:
    low, high = outcome.robust_ci95
    return f"{100 * outcome.robust_accuracy:.1f} ({100 * low:.1f}-{100 * high:.1f})"


if __name__ == "__main__":
    main()
