"""PGD in the Linf ball, side by side: time, robust accuracy, and what our engine costs."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from functools import partial
from typing import Any

import bare
import contenders
import sheet
import subject as subjects
from contenders import Linf, our_pgd
from rounds import Laps, Run, measure, ratio
from subject import Subject
from torch import Tensor, nn

from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.prepared import prepare
from robustbench_lite.threat import Lp, Norm

ON, OFF = "ours", "ours, no early leave"
ALONE = {ON: "its model calls alone", OFF: "its model calls alone, no early leave"}
PLAIN, FAST = "bare original", "bare prepared"
PLAIN_LOOK, FAST_LOOK = "bare original, forward", "bare prepared, forward"


def main() -> None:
    """Measure and print."""
    options = _options()
    subject = subjects.load(options)
    settings = Linf(options.eps / 255, options.eps / 255 * options.rel_step, options.steps)
    builds, missing = contenders.present(contenders.PGD_PEERS)
    peers = [name for name in builds if name not in options.leave_out]
    fast = _prepared(subject)

    calls = {
        name: bare.counted(subject, partial(our_pgd, subject, settings, 0, early_leave=name == ON))
        for name in (ON, OFF)
    }

    def everybody(settings: Linf) -> dict[str, Run]:
        runs: dict[str, Run] = {
            ON: lambda seed: our_pgd(subject, settings, seed, early_leave=True).adversarials,
            OFF: lambda seed: our_pgd(subject, settings, seed, early_leave=False).adversarials,
        }
        runs |= {name: builds[name](subject, settings) for name in peers}
        runs |= {
            ALONE[name]: bare.replay(calls[name], subject.model, fast, subject) for name in calls
        }
        return runs | _bare(subject, fast, settings.steps)

    measure(everybody(replace(settings, steps=1)), 1, between=subject.forget)  # warm up
    laps = measure(everybody(settings), options.repeats, once=options.once, between=subject.forget)
    right = subject.correct()
    threat = Lp(Norm.LINF, settings.eps)
    robust = {name: _robust(subject, threat, right, lap) for name, lap in laps.items() if lap.found}
    print(
        f"PGD-{settings.steps} Linf {options.eps:g}/255, step {settings.step * 255:.3g}/255, "
        f"random start; model {options.model}, {len(subject.x)} images, of which "
        f"{int(right.sum())} are classified correctly; batch {subject.batch}, "
        f"{options.repeats} rounds"
    )
    _print_race(laps, robust, peers)
    engine = {name: _engine(calls[name], laps, name, settings, subject) for name in (ON, OFF)}
    _print_engine(engine, laps, subject, settings)
    sheet.print_footer(missing)
    sheet.store(options.json, options, laps, {"robust_accuracy": robust, "engine": engine})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    subjects.add_options(parser, n=512, batch=256, repeats=5)
    parser.add_argument("--eps", type=float, default=8.0, help="radius in 255ths")
    parser.add_argument("--steps", type=int, default=40, help="moves")
    parser.add_argument("--rel-step", type=float, default=0.1, help="step size by eps")
    return parser.parse_args()


def _prepared(subject: Subject) -> nn.Module:
    """The copy that evaluate() attacks."""
    assert isinstance(subject.model, Classifier)
    with borrowed(subject.model):
        fast = prepare(subject.model, subject.x[: subject.batch])
    if fast is subject.model:
        print("prepare() gave the original model back: both bare figures are of the same model")
    return fast


def _bare(subject: Subject, fast: nn.Module, steps: int) -> dict[str, Run]:
    return {
        PLAIN: bare.pairs(subject.model, subject, steps),
        FAST: bare.pairs(fast, subject, steps),
        PLAIN_LOOK: bare.looks(subject.model, subject, steps),
        FAST_LOOK: bare.looks(fast, subject, steps),
    }


def _robust(subject: Subject, threat: Lp, right: Tensor, laps: Laps) -> list[float]:
    broken = [
        subject.fooled(adv) & threat.contains(subject.x, adv.clamp(0, 1))
        for adv in laps.found.values()
    ]
    return [float((right & ~each).float().mean()) for each in broken]


def _print_race(laps: dict[str, Laps], robust: dict[str, list[float]], peers: list[str]) -> None:
    rows = []
    for name, lap in laps.items():
        accuracy = 100 * statistics.fmean(robust[name]) if name in robust else None
        to_bare = ratio(laps, name, [PLAIN])
        to_peer = ratio(laps, name, peers) if peers else None
        rows.append([name, *sheet.times(lap), *map(sheet.cell, (to_peer, to_bare, accuracy))])
    columns = ["contender", "s, median", "s, spread", "/ fastest peer", "/ bare", "robust %"]
    sheet.print_table("", columns, rows)
    print(
        "'/ fastest peer' and '/ bare' (forward + input gradient of the original model, all steps, "
        "all images) are\nmedians of the ratios within a round. 'robust %' is checked by one "
        "function on the original model and within eps; mean\nof the rounds. Ours is the whole of "
        "evaluate() and does not attack images that are wrong from the start; the peers\nattack "
        "all (--correct-only removes that difference)."
    )


def _engine(
    calls: list[bare.Call], laps: dict[str, Laps], name: str, settings: Linf, subject: Subject
) -> dict[str, Any]:
    pairs = bare.images(calls, original=False, backward=True)
    full = pairs * bare.each(laps[FAST], subject, settings.steps)
    return {
        "pairs": pairs,
        "looks": bare.images(calls, original=False, backward=False),
        "original_looks": bare.images(calls, original=True, backward=False),
        "calls": len(calls),
        "alone_seconds": laps[ALONE[name]].median,
        "engine_cost": ratio(laps, name, [ALONE[name]]),
        "over_full_batches": laps[name].median / full,
    }


def _print_engine(
    engine: dict[str, dict[str, Any]], laps: dict[str, Laps], subject: Subject, settings: Linf
) -> None:
    rows = [
        [
            name,
            sheet.cell(laps[name].median),
            str(e["calls"]),
            str(e["pairs"]),
            str(e["looks"]),
            str(e["original_looks"]),
            sheet.cell(e["alone_seconds"]),
            sheet.cell(e["engine_cost"]),
            sheet.cell(e["over_full_batches"]),
        ]
        for name, e in engine.items()
    ]
    columns = ["engine cost", "s", "calls", "pairs", "forward", "original", "alone, s", "s / alone"]
    sheet.print_table("", [*columns, "s / full"], rows)
    steps = settings.steps
    prices = ", ".join(
        f"{name} {1e3 * bare.each(laps[name], subject, steps):.3f}"
        for name in (PLAIN, FAST, PLAIN_LOOK, FAST_LOOK)
    )
    print(
        "A hook notes every call of a model in one evaluate(): pairs (forward + input gradient) "
        "and forward passes of the\nprepared model, and forward passes of the original one, in "
        "images. 'alone' times the same calls once more, in their order\nand at their batch sizes "
        "and with nothing else; 's / alone' is the median of the ratios within a round. 's / full'"
        " is\ntime / (pairs x the cost of a pair in full batches): it also holds the judge's "
        "own passes, the preparation and what\nnarrow batches cost more. "
        f"Milliseconds an image:\n{prices}."
    )


if __name__ == "__main__":
    main()
