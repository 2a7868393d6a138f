"""Time of each algorithm beside every peer's version of it, and what is not the model's own time.

    python speed.py --model cifar10-resnet-at --algorithms apgd fab-t square deepfool

Overhead is time / (time of the same model calls alone, at the same batch sizes): for ours the calls
are replayed on the prepared and the original model, for a peer on the original model.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import bare
import sheet
import subject as subjects
import torch
from algorithms import Algorithm, Build, algorithms
from rounds import Laps, Run, measure, ratio
from subject import Subject
from torch import Tensor

from robustbench_lite.attack import Plan
from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.judge import evaluate
from robustbench_lite.prepared import prepare
from robustbench_lite.registry import Kind, load_attack, registered
from robustbench_lite.threat import Lp, Norm


def main() -> None:
    """Measure and print."""
    options = _options()
    subject = subjects.load(options)
    known = algorithms(options.steps)
    for name in options.algorithms:
        _race(name, known[name], subject, options)
    sheet.print_footer([])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    subjects.add_options(parser, n=128, batch=128, repeats=3)
    known = [name for name in algorithms(1) if name in registered(Kind.ATTACKS)]
    parser.add_argument("--algorithms", nargs="+", default=known, choices=known, help="which")
    parser.add_argument("--eps", type=float, default=8.0, help="radius in 255ths (L2: x 16)")
    parser.add_argument("--steps", type=int, default=100, help="moves; square: times 10")
    parser.set_defaults(correct_only=True)
    return parser.parse_args()


def _race(name: str, algorithm: Algorithm, subject: Subject, options: argparse.Namespace) -> None:
    eps = options.eps / 255 * (16 if algorithm.norm is Norm.L2 else 1)
    threat = Lp(algorithm.norm) if algorithm.minimal else Lp(algorithm.norm, eps)
    plan = load_attack(name, **algorithm.ours)
    assert isinstance(subject.model, Classifier)
    with borrowed(subject.model):
        fast = prepare(subject.model, subject.x[: subject.batch])
    runs: dict[str, Run] = {}
    ours = {"ours": True} if algorithm.minimal else {"ours": True, "ours, no early leave": False}
    for label, leave in ours.items():
        runs[label] = _our_run(plan, threat, subject, early_leave=leave)
    for peer, (module, build) in algorithm.peers.items():
        if find_spec(module) and peer not in options.leave_out:
            runs[peer] = _peer_run(build, eps, subject)
    alone = {
        label: bare.replay(bare.counted(subject, lambda r=run: r(0)), subject.model, fast, subject)
        for label, run in runs.items()
    }
    every = runs | {f"{label}: calls alone": run for label, run in alone.items()}
    laps = measure(every, options.repeats, once=options.once, between=subject.forget)
    right = subject.correct()
    peers = [label for label in runs if label not in ours]
    rows = []
    for label in runs:
        to_peer = ratio(laps, label, peers) if peers else None
        cost = ratio(laps, label, [f"{label}: calls alone"])
        found = _found(subject, threat, right, laps[label])
        rows.append([label, *sheet.times(laps[label]), *map(sheet.cell, (to_peer, cost)), *found])
    columns = ["contender", "s, median", "s, spread", "/ fastest peer", "overhead"]
    columns += ["robust %" if not algorithm.minimal else "failed", "mean size"]
    title = f"{name}, {threat}, {options.model}, {len(subject.x)} images, batch {subject.batch}"
    sheet.print_table(title, columns, rows)


def _our_run(plan: Plan, threat: Lp, subject: Subject, *, early_leave: bool) -> Run:
    def run(seed: int) -> Tensor:
        return evaluate(
            subject.model,
            plan,
            threat,
            subject.data,
            seed=seed,
            batch_size=subject.batch,
            early_leave=early_leave,
        ).adversarials

    return run


def _peer_run(build: Build, eps: float, subject: Subject) -> Run:
    attack = build(subject.model, eps)

    def run(_round: int) -> Tensor:
        return torch.cat([attack(x, y) for x, y in subject.batches()])

    return run


def _found(subject: Subject, threat: Lp, right: Tensor, laps: Laps) -> list[str]:
    adv = laps.found[0]
    inside = threat.contains(subject.x, adv.clamp(0, 1))
    broken = subject.fooled(adv) & inside & right
    size = threat.size(subject.x, adv.clamp(0, 1))[broken]
    left = int((right & ~broken).sum())
    mean = f"{float(size.mean()):.4g}" if len(size) else "-"
    if threat.eps == float("inf"):
        return [str(left), mean]
    return [f"{100 * left / len(right):.2f}", mean]


if __name__ == "__main__":
    main()
