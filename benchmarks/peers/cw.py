"""The L2 attack of Carlini and Wagner, side by side: time and size of the perturbation."""

from __future__ import annotations

import argparse
from typing import Any

import contenders
import sheet
import subject as subjects
import torch
from contenders import Search, our_cw
from rounds import Laps, Run, measure, ratio
from subject import Subject
from torch import Tensor

from robustbench_lite.threat import Lp, Norm

OURS = "ours"


def main() -> None:
    """Measure and print."""
    options = _options()
    subject = subjects.load(options)
    settings = Search(options.searches, options.steps)
    builds, missing = contenders.present(contenders.CW_PEERS)
    peers = [name for name in builds if name not in options.leave_out]

    def everybody(settings: Search) -> dict[str, Run]:
        runs: dict[str, Run] = {OURS: our_cw(subject, settings)}
        return runs | {name: builds[name](subject, settings) for name in peers}

    measure(everybody(Search(1, 10)), 1, between=subject.forget)  # warm up
    laps = measure(
        everybody(settings),
        options.repeats,
        once=options.once,
        between=subject.forget,
        keep=lambda number: number == 0,
    )
    right = subject.correct()
    sizes = {name: _sizes(subject, right, lap) for name, lap in laps.items()}
    print(
        f"CW-L2 {settings.searches} x {settings.steps}; model {options.model}, {len(subject.x)} "
        f"images, of which {int(right.sum())} are classified correctly; batch {subject.batch}, "
        f"{options.repeats} rounds"
    )
    figures = _compare(sizes)
    _print(laps, figures, peers, settings)
    sheet.print_footer(missing)
    raw = {name: [round(s, 6) for s in size.tolist()] for name, size in sizes.items()}
    finite = {name: [s if s < float("inf") else None for s in row] for name, row in raw.items()}
    sheet.store(options.json, options, laps, {"figures": figures, "sizes": finite})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    subjects.add_options(parser, n=100, batch=256, repeats=3)
    parser.set_defaults(once=["art"])  # its line search takes many times what the others take
    parser.add_argument("--searches", type=int, default=9, help="values of c")
    parser.add_argument("--steps", type=int, default=100, help="moves for each c, 10 or more")
    options = parser.parse_args()
    if options.steps < 10:
        parser.error("--steps is below 10: adv-lib divides the steps into tenths")
    return options


def _sizes(subject: Subject, right: Tensor, laps: Laps) -> Tensor:
    """L2 size for each correctly classified image, inf where the original model is not fooled."""
    adv = laps.found[0]
    size = Lp(Norm.L2).size(subject.x, adv.clamp(0, 1))
    return size.masked_fill(~subject.fooled(adv), torch.inf)[right]


def _compare(sizes: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    table = torch.stack(list(sizes.values()))
    found = table.isfinite()
    by_all, by_any = found.all(0), found.any(0)
    worst = table.masked_fill(~found, 0).amax(0)
    filled = torch.where(found, table, worst)
    return {
        name: {
            "failed": int((~found[i]).sum()),
            "mean": _mean(table[i][found[i]]),
            "median": float(table[i][found[i]].median()) if found[i].any() else None,
            "mean_where_all": _mean(table[i][by_all]),
            "mean_failures_worst": _mean(filled[i][by_any]),
            "size_by_ours": _paired(sizes[name], sizes[OURS]),
            "images_where_all": int(by_all.sum()),
            "images_where_any": int(by_any.sum()),
        }
        for i, name in enumerate(sizes)
    }


def _paired(size: Tensor, ours: Tensor) -> float | None:
    both = size.isfinite() & ours.isfinite()
    return float(size[both].mean() / ours[both].mean()) if both.any() else None


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _print(
    laps: dict[str, Laps],
    figures: dict[str, dict[str, Any]],
    peers: list[str],
    settings: Search,
) -> None:
    rows = []
    keys = ("mean", "median", "mean_where_all", "mean_failures_worst")
    full = [peer for peer in peers if peer != "torchattacks-short"]
    for name, lap in laps.items():
        f = figures[name]
        speed = [ratio(laps, name, to) if to else None for to in (peers, full)]
        sizes = [sheet.cell(f[key], 4) for key in keys]
        to_ours = sheet.cell(f["size_by_ours"], 3)
        rows.append(
            [name, *sheet.times(lap), *map(sheet.cell, speed), str(f["failed"]), *sizes, to_ours]
        )
    columns = ["contender", "s, median", "s, spread", "/ peer", "/ full peer", "failed"]
    columns += ["mean", "median", "mean all", "mean worst", "L2 / ours"]
    sheet.print_table("", columns, rows)
    one = figures[OURS]
    print(
        "Every adversarial example is checked once more by one function on the original model; "
        "only images that it\nclassifies correctly count. 'failed': nothing found that holds; mean "
        "and median are over the rest, and so flatter\nwhoever fails on hard images. 'mean all': "
        f"the {one['images_where_all']} images where everybody succeeded. 'mean worst': the "
        f"{one['images_where_any']} images\nwhere anybody did, a failure counting as the largest "
        "size anybody found for that image. 'L2 / ours': mean by our\nmean, on the images where "
        "both succeeded; above 1 ours is smaller. '/ peer': median ratio within a round to\n"
        "the fastest peer; '/ full peer' leaves out torchattacks-short (c=1, "
        f"{settings.steps} steps, no search), which has a fraction\nof the others' budget. "
        "The peers may stop early, as is their default."
    )


if __name__ == "__main__":
    main()
