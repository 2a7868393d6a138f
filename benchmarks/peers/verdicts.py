"""Does our autoattack come to the verdict of pyautoattack's standard version, sample by sample?

    python verdicts.py --model mnist-cnn-at --norm linf --eps 0.3    # measures what is not stored
    python verdicts.py --table                                       # prints what is stored

Each contender gets one cell, a line of verdicts.jsonl under --cells; a cell that exists is not
measured again. Both search on the prepared copy (nobody is timed) and are checked by one function
on the original model.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import sheet
import subject as subjects
from subject import Subject
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.judge import evaluate
from robustbench_lite.prepared import prepare
from robustbench_lite.registry import load_attack
from robustbench_lite.threat import Lp, Norm

OURS, THEIRS = "ours", "pyautoattack"
WRONG, ROBUST, BROKEN = "wrong", "robust", "broken"

_KEY = ("model", "norm", "eps", "first", "n")

Verdict = tuple[Tensor, list[str], str]


def main() -> None:
    """Measure the missing cells of one model and norm, or print the table."""
    options = _options()
    if not options.table:
        subject = subjects.load(options)
        threat = subjects.ball_of(options)
        if options.side != "peers":
            _measure(OURS, _ours, subject, threat, options)
        if options.side != "ours" and find_spec("pyautoattack") is not None:
            _measure(THEIRS, theirs, subject, threat, options)
    _print(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["both", "ours", "peers"], default="both")
    return subjects.parsed_with_ball(parser, n=500, batch=250)


def _measure(
    name: str,
    run: Callable[[Subject, Lp], Verdict],
    subject: Subject,
    threat: Lp,
    options: argparse.Namespace,
) -> None:
    key = {k: getattr(options, k) for k in _KEY} | {"contender": name}
    if any(key.items() <= known.items() for known in sheet.cells_of(_file(options))):
        return
    right = subject.correct()
    adv, stages, course = run(subject, threat)
    subject.forget()
    fooled = subject.fooled(adv)
    inside = threat.contains(subject.x, adv.clamp(0, 1))
    broken = right & fooled & inside
    outcomes = [
        WRONG if not ok else (stage or BROKEN) if lost else ROBUST
        for ok, lost, stage in zip(right.tolist(), broken.tolist(), stages, strict=True)
    ]
    cell = key | {
        "robust": int((right & ~broken).sum()),
        "outside": int((right & fooled & ~inside).sum()),
        "course": course,
        "version": metadata.version("pyautoattack" if name == THEIRS else "robustbench-lite"),
        "outcomes": outcomes,
    }
    sheet.add_cell(_file(options), cell)
    print(f"{name}: {cell['robust']} robust of {len(right)}; {course}", flush=True)


def _ours(subject: Subject, threat: Lp) -> Verdict:
    """(N, ...) adversarial examples, for each the stage that found it, and what was doubted."""
    plan = load_attack("autoattack")
    outcome = evaluate(subject.model, plan, threat, subject.data, batch_size=subject.batch, seed=0)
    stages = [record.attack.split("(")[0] for record in outcome.records]
    return outcome.adversarials, stages, "; ".join(map(str, outcome.doubts))


def theirs(
    subject: Subject,
    threat: Lp,
    seed: int = 0,
    *,
    as_is: bool = False,
    version: Literal["standard", "rand"] = "standard",
) -> Verdict:
    """The same of the peer; its log tells how many were robust after each stage.

    It searches on our prepared copy or, `as_is`, on the model itself, as its users have it do.
    """
    from pyautoattack import AutoAttack

    assert isinstance(subject.model, Classifier)
    asked = subject.model if as_is else prepare(subject.model, subject.x[:32])
    norm = {Norm.LINF: "Linf", Norm.L2: "L2"}[threat.norm]
    log = _Log()
    logger = logging.getLogger("auto-attack")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    attack = AutoAttack(asked, norm=norm, eps=threat.eps, seed=seed, version=version)
    adv, _ = attack.run_standard_evaluation(
        subject.x.clone(), subject.y.clone(), batch_size=subject.batch
    )
    logger.removeHandler(log)
    return adv, [""] * len(adv), "; ".join(log.lines)


class _Log(logging.Handler):
    """Keeps what the peer says of its stages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line about a stage."""
        line = record.getMessage()
        if line.startswith(("initial accuracy", "robust accuracy after")):
            print(line, flush=True)
            self.lines.append(line.split(" (")[0])


def _file(options: argparse.Namespace) -> Path:
    return Path(options.cells) / "verdicts.jsonl"


def _print(options: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for cell in sheet.cells_of(_file(options)):
        groups.setdefault(tuple(cell[k] for k in _KEY), {})[cell["contender"]] = cell
    rows = [
        [*map(str, key), *_row(cells[OURS], cells[THEIRS])]
        for key, cells in groups.items()
        if {OURS, THEIRS} <= cells.keys()
    ]
    figures = ["clean %", "ours %", "theirs %", "only ours", "only theirs", "our stages broke"]
    sheet.print_table("autoattack and pyautoattack, standard", [*_KEY, *figures], rows)
    print(
        "'only ours': samples that only our autoattack broke; 'only theirs': those that only "
        "pyautoattack broke."
    )


def _row(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    pairs = list(zip(ours["outcomes"], theirs["outcomes"], strict=True))
    share = 100 / len(pairs)
    stages = Counter(o for o, _ in pairs if o not in (WRONG, ROBUST))
    return [
        f"{share * sum(o != WRONG for o, _ in pairs):.1f}",
        f"{share * ours['robust']:.1f}",
        f"{share * theirs['robust']:.1f}",
        str(sum(t == ROBUST and o not in (WRONG, ROBUST) for o, t in pairs)),
        str(sum(o == ROBUST and t == BROKEN for o, t in pairs)),
        ", ".join(f"{name} {count}" for name, count in stages.items()) or "-",
    ]


if __name__ == "__main__":
    main()
