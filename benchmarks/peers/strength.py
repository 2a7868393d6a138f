"""Which attack finds the smallest perturbations? AttackBench's local optimality, ours and peers'.

    python strength.py --model mnist-cnn-at --norm linf     # measures what is not yet stored
    python strength.py --table                              # prints what is stored

Each contender gets one cell, a line of a file under --cells; a cell that exists is not measured
again, so the command can be stopped and started at any time. Delete a line to measure it anew.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arsenal
import sheet
import subject as subjects
import torch
from arsenal import Contender
from subject import Subject
from torch import Tensor
from tracker import OverBudgetError, Tracker

from robustbench_lite.classifier import Classifier
from robustbench_lite.prepared import prepare
from robustbench_lite.threat import Lp, Norm

_CELLS = Path(__file__).with_name("cells")
_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def main() -> None:
    """Measure the missing cells of one model and norm, or print the table."""
    options = _options()
    if not options.table:
        subject = subjects.load(options)
        for norm in map(Norm, options.norm):
            for contender in arsenal.contenders(norm, options.budget):
                if options.only and contender.name not in options.only:
                    continue
                if options.side != "both" and contender.ours != (options.side == "ours"):
                    continue
                _measure(contender, subject, norm, options)
    _print(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    subjects.add_options(parser, n=200, batch=200, repeats=1)
    parser.add_argument("--norm", nargs="+", default=["linf", "l2", "l1", "l0"], help="norms")
    parser.add_argument("--budget", type=int, default=2000, help="forward + backward a sample")
    parser.add_argument("--cells", type=Path, default=_CELLS, help="where results are stored")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these")
    parser.add_argument("--side", choices=["both", "ours", "peers"], default="both")
    parser.add_argument("--table", action="store_true", help="print what is stored, run nothing")
    options = parser.parse_args()
    if options.model.startswith("mnist") and "cifar" in options.data:
        options.data = f"npz:{_SHARED / 'mnist.npz'}"
    return options


def _measure(c: Contender, subject: Subject, norm: Norm, options: argparse.Namespace) -> None:
    key = {
        "model": options.model,
        "norm": str(norm),
        "budget": options.budget,
        "first": options.first,
        "n": options.n,
        "contender": c.name,
    }
    file = options.cells / f"{options.model}-{norm}.jsonl"
    if any(key.items() <= known.items() for known in sheet.cells_of(file)):
        return
    options.cells.mkdir(parents=True, exist_ok=True)
    right = subject.correct()
    part = Subject(subject.model, subject.data.take(right.nonzero().flatten()), subject.batch)
    started = time.perf_counter()
    try:
        sizes, spent, note = _run(c, part, norm, options.budget)
    except Exception as error:  # a peer may fail in any way; the cell says how
        sizes, spent, note = torch.full((len(part.x),), torch.inf), 0.0, f"{error!r}"[:200]
    cell = key | {
        "correct": int(right.sum()),
        "ours": c.ours,
        "seconds": round(time.perf_counter() - started, 1),
        "evaluations": round(spent, 1),
        "note": note,
        "sizes": [round(s, 7) if math.isfinite(s) else None for s in sizes.tolist()],
        "versions": sheet.versions(),
    }
    sheet.add_cell(file, cell)
    print(f"{c.name}: {cell['seconds']} s, {spent:.0f} evaluations {note}", flush=True)


def _run(c: Contender, part: Subject, norm: Norm, budget: int) -> tuple[Tensor, float, str]:
    threat = Lp(norm)
    if c.ours:
        outcome = c.evaluate(part, threat)
        records = outcome.records
        spent = max(r.queries + r.backwards for r in records)
        sizes = [math.inf if r.size is None else r.size for r in records]
        return torch.tensor(sizes, dtype=torch.float64), float(spent), ""
    found, most, note = [], 0.0, ""
    assert isinstance(part.model, Classifier)
    # Nobody is timed here, so the peers too search on the faster copy that ours searches on.
    fast = prepare(part.model, part.x[:32])
    for x, y in part.batches():
        x = x.clone()  # a batch is a view, which some peers cannot detach in place
        tracker = Tracker(fast, threat, x, y, budget)
        torch.manual_seed(0)
        try:
            adv = c.attack(tracker, x, y)
            if adv is not None and tracker.spent <= budget:
                with torch.no_grad():
                    tracker.note(adv, fast(adv))
        except OverBudgetError:
            note = "stopped at the budget"
        if part.forget():
            note = "changed the model, which was brought back"
        holds = part.logits(tracker.adv).argmax(1) != y
        found.append(tracker.best.where(holds, torch.inf))
        most = max(most, tracker.spent)
    return torch.cat(found), most, note


def _cells(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for file in sorted(options.cells.glob("*-l*.jsonl")):
        for cell in sheet.cells_of(file):
            if cell["budget"] == options.budget and cell["norm"] in options.norm:
                yield cell


def optimality(sizes: Tensor, best: Tensor, samples: int) -> float:
    """Local optimality (arXiv:2404.19460, section 3.3) of sizes (M,) of the samples that count.

    A = area under the robust accuracy up to the largest best size; samples that are wrong from the
    start are 0 everywhere. 1 is as good as the best of all attacks on every sample.
    """
    found = best.isfinite()
    end = float(best[found].max())
    area = float(sizes.clamp(max=end).sum()) / samples
    least = float(best.clamp(max=end).sum()) / samples
    start = len(best) / samples
    return 1 - (area - least) / (start * end - least)


def _print(options: argparse.Namespace) -> None:
    groups: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}
    for cell in _cells(options):
        key = (cell["norm"], cell["model"], cell["first"], cell["n"])
        groups.setdefault(key, []).append(cell)
    for (norm, model, first, n), cells in sorted(groups.items()):
        sizes = {
            c["contender"]: torch.tensor(
                [math.inf if s is None else s for s in c["sizes"]], dtype=torch.float64
            )
            for c in cells
        }
        best = torch.stack(list(sizes.values())).amin(0)
        if not bool(best.isfinite().any()):
            continue
        rows = []
        for c in cells:
            size = sizes[c["contender"]]
            some = size[size.isfinite()]
            rows.append(
                (
                    optimality(size, best, n),
                    [
                        c["contender"],
                        f"{100 * optimality(size, best, n):.2f}",
                        sheet.cell(float(some.mean()) if len(some) else None, 4),
                        sheet.cell(float(size.median()) if len(size) else None, 4),
                        str(int((~size.isfinite()).sum())),
                        f"{c['evaluations']:.0f}",
                        f"{c['seconds']:.1f}",
                        c["note"][:40],
                    ],
                )
            )
        rows.sort(key=lambda row: -row[0])
        columns = ["contender", "optimality %", "mean", "median", "failed", "F + B", "s", "note"]
        title = f"{norm}, {model}, images {first} to {first + n - 1}, {options.budget} evaluations"
        sheet.print_table(title, columns, [row for _, row in rows])
    sheet.print_footer([])


if __name__ == "__main__":
    main()
