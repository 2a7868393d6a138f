"""What is left of models whose gradients lie, by our verdict and by AutoAttack?

    python liars.py                      # all models, 100 images, 3 seeds
    python liars.py --models jpeg --n 60 --seeds 1
    python liars.py --table              # prints what is stored

mnist-cnn with its logits, input or activations changed, in Linf. `quantised` and `jpeg` are handed
over as any user would, with the gradient that they have, zero; `-known` are the same as defenses
of ours, which give attackers another way back. Three contenders for each: our verdict, our
autoattack and pyautoattack, of AutoAttack's `rand` version where the model draws random numbers, on
the model itself. An answer of a random model is that of most of 400 passes, for every contender. A
line of liars.jsonl under --cells is one run.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sheet
import subject as subjects
import torch
from rbl_defenses.jpeg import Jpeg
from subject import Subject
from torch import Tensor, nn
from verdicts import OURS, THEIRS, theirs

from robustbench_lite.classifier import Classifier
from robustbench_lite.judge import evaluate
from robustbench_lite.models import load_model
from robustbench_lite.registry import load_attack
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp

_VOTES = 400  # 50 passes of the same examples gave 37 to 41 of 60
_VERDICT = "verdict"
_Change = Callable[[Tensor], Tensor]

_KEY = ("base", "eps", "first", "n")


class _Changed(nn.Module):
    """A model with something done to its images and to its logits."""

    def __init__(
        self,
        model: nn.Module,
        before: _Change,
        after: _Change,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.model(self.before(x)))
        return logits


@dataclass(frozen=True)
class _Liar:
    """One way for gradients to lie.

    Args:
        make: the model of the name of the one that is changed.
        random: equal images get unequal answers.
    """

    make: Callable[[str], Classifier]
    random: bool = False


def _same(x: Tensor) -> Tensor:
    return x


def _changed(before: _Change = _same, after: _Change = _same) -> Callable[[str], Classifier]:
    return lambda name: Classifier(_Changed(load_model(name), before, after))


def _behind(defense: str) -> Callable[[str], Classifier]:
    return lambda name: load_model(f"{name}+{defense}")


def _through_jpeg(x: Tensor) -> Tensor:
    seen = Jpeg().images(x, Rng(torch.zeros(len(x), dtype=torch.long)))
    return seen + 0 * x  # a gradient of zero, as rounding has


LIARS: dict[str, _Liar] = {
    "plain": _Liar(load_model),
    "logits-x-1e4": _Liar(_changed(after=lambda z: z * 1e4)),
    "softmax": _Liar(_changed(after=lambda z: z.softmax(1))),
    "quantised": _Liar(_changed(before=lambda x: (x * 7).round() / 7)),
    "quantised-known": _Liar(_behind("bit-depth?bits=3")),
    "jpeg": _Liar(_changed(before=_through_jpeg)),
    "jpeg-known": _Liar(_behind("jpeg")),
    "k-wta": _Liar(lambda name: load_model(f"{name}-kwta")),
    "noise": _Liar(_changed(before=lambda x: x + 0.1 * torch.randn_like(x)), random=True),
}


def main() -> None:
    """Measure what is missing, or print the table."""
    options = _options()
    if not options.table:
        options.base = options.model
        plain = subjects.load(options)
        threat = subjects.ball_of(options)
        for name in options.models:
            liar = LIARS[name]
            subject = Subject(liar.make(options.model).eval(), plain.data, options.batch)
            for seed in range(options.seeds):
                for contender in (_VERDICT, OURS, THEIRS):
                    _measure(name, liar, contender, subject, threat, seed, options)
    _print(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=LIARS, default=list(LIARS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    return subjects.parsed_with_ball(parser, n=100, batch=250, model="mnist-cnn", eps="0.1")


def _measure(
    name: str,
    liar: _Liar,
    contender: str,
    subject: Subject,
    threat: Lp,
    seed: int,
    options: argparse.Namespace,
) -> None:
    key = {k: getattr(options, k) for k in _KEY} | {"model": name}
    key |= {"contender": contender, "seed": seed}
    if any(key.items() <= known.items() for known in sheet.cells_of(_file(options))):
        return
    torch.manual_seed(seed)
    cpu = time.process_time()
    adv, told = _run(contender, liar, subject, threat, seed)
    cpu = time.process_time() - cpu
    subject.forget()
    right = ~_wrong(subject, subject.x, liar)
    broken = _wrong(subject, adv.clamp(0, 1), liar) & threat.contains(subject.x, adv.clamp(0, 1))
    robust = right & ~broken
    cell = key | {
        "correct": int(right.sum()),
        "robust": robust.nonzero().flatten().tolist(),
        "cpu_seconds": round(cpu, 2),
        "threads": torch.get_num_threads(),
        "day": datetime.date.today().isoformat(),
        "told": told,
    }
    sheet.add_cell(_file(options), cell)
    print(f"{name}, {contender}, seed {seed}: {len(cell['robust'])} robust, {cpu:.1f} s; {told}")


def _run(
    contender: str, liar: _Liar, subject: Subject, threat: Lp, seed: int
) -> tuple[Tensor, str]:
    if contender == THEIRS:
        version = "rand" if liar.random else "standard"
        adv, _, course = theirs(subject, threat, seed, as_is=True, version=version)
        return adv, course
    ours = f"autoattack{'-rand' * liar.random}"
    plan = load_attack(_VERDICT if contender == _VERDICT else ours)
    outcome = evaluate(
        subject.model, plan, threat, subject.data, batch_size=subject.batch, seed=seed
    )
    return outcome.adversarials, "; ".join([str(outcome.trust), *map(str, outcome.doubts)])


def _wrong(subject: Subject, x: Tensor, liar: _Liar) -> Tensor:
    """(N,) bool: wrong in most passes, by torch's own random numbers."""
    if not liar.random:
        return subject.logits(x).argmax(1) != subject.y
    torch.manual_seed(1)
    passes = [subject.logits(x).argmax(1) != subject.y for _ in range(_VOTES)]
    return torch.stack(passes).float().mean(0) > 0.5


def _file(options: argparse.Namespace) -> Path:
    return Path(options.cells) / "liars.jsonl"


def _print(options: argparse.Namespace) -> None:
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for cell in sheet.cells_of(_file(options)):
        group = groups.setdefault(tuple(cell[k] for k in (*_KEY, "model")), {})
        group.setdefault(cell["contender"], []).append(cell)
    rows = []
    for key, group in groups.items():
        row = [key[-1], *map(str, key[:-1]), str(group[_VERDICT][0]["correct"])]
        for contender in (_VERDICT, OURS, THEIRS):
            cells = group.get(contender, [])
            row.append(" ".join(str(len(cell["robust"])) for cell in cells))
            row.append(" ".join(f"{cell['cpu_seconds']:.0f}" for cell in cells))
        trust = [cell["told"].partition(";")[0] for cell in group[_VERDICT]]
        rows.append([*row, " ".join(trust)])
    figures = [_VERDICT, "s", "autoattack", "s", THEIRS, "s", "trust"]
    sheet.print_table(
        "models whose gradients lie: samples left, seed by seed",
        ["model", *_KEY, "correct", *figures],
        rows,
    )


if __name__ == "__main__":
    main()
