"""Time of each algorithm beside every peer's version of it, and what is not the model's own time.

    python speed.py --model cifar10-resnet-at --algorithms apgd fab-t square deepfool

Overhead is time / (time of the same model calls alone, at the same batch sizes): for ours the calls
are replayed on the prepared and the original model, for a peer on the original model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import bare
import sheet
import subject as subjects
import torch
from rounds import Laps, Run, measure, ratio
from subject import Subject
from torch import Tensor, nn

from robustbench_lite.attack import Plan
from robustbench_lite.classifier import Classifier, borrowed, prepare
from robustbench_lite.judge import evaluate
from robustbench_lite.registry import load_attack
from robustbench_lite.threat import Lp, Norm

Build = Callable[[nn.Module, float], Callable[[Tensor, Tensor], Tensor]]


@dataclass(frozen=True)
class Algorithm:
    """Ours, and a builder a peer: (model, eps) to a function of images and labels."""

    norm: Norm
    ours: dict[str, object]
    peers: dict[str, tuple[str, Build]]
    minimal: bool = False


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
    known = list(algorithms(1))
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


def algorithms(steps: int) -> dict[str, Algorithm]:
    """Every algorithm with the peers that have it, all with the same number of moves."""
    inf = float("inf")
    return {
        "apgd": Algorithm(
            Norm.LINF,
            {"steps": steps},
            {
                "pyautoattack": ("pyautoattack", _pyautoattack_apgd(steps)),
                "torchattacks": ("torchattacks", _torchattacks("APGD", eps=True, steps=steps)),
                "adv-lib": ("adv_lib", _adv_lib("apgd", norm=inf, n_iter=steps)),
                "art": ("art", _art("AutoProjectedGradientDescent", max_iter=steps)),
            },
        ),
        "fab-t": Algorithm(
            Norm.LINF,
            {"steps": 9 * (steps // 5)},
            {"pyautoattack": ("pyautoattack", _pyautoattack_fab(steps // 5))},
        ),
        "square": Algorithm(
            Norm.LINF,
            {"steps": 10 * steps},
            {
                "pyautoattack": ("pyautoattack", _pyautoattack_square(10 * steps)),
                "torchattacks": (
                    "torchattacks",
                    _torchattacks("Square", eps=True, n_queries=10 * steps),
                ),
                "art": ("art", _art("SquareAttack", max_iter=10 * steps)),
            },
        ),
        "deepfool": Algorithm(
            Norm.L2,
            {},
            {
                "adv-lib": ("adv_lib", _adv_lib("df", norm=2, eps=False)),
                "foolbox": ("foolbox", _foolbox("L2DeepFoolAttack")),
                "art": ("art", _art("DeepFool", eps=False)),
                "torchattacks": ("torchattacks", _torchattacks("DeepFool")),
            },
            minimal=True,
        ),
        "superdeepfool": Algorithm(
            Norm.L2, {}, {"adv-lib": ("adv_lib", _adv_lib("sdf", eps=False))}, minimal=True
        ),
        "ddn": Algorithm(
            Norm.L2,
            {"steps": steps},
            {
                "adv-lib": ("adv_lib", _adv_lib("ddn", eps=False, steps=steps, levels=None)),
                "foolbox": ("foolbox", _foolbox("DDNAttack", steps=steps)),
            },
            minimal=True,
        ),
        "fmn": Algorithm(
            Norm.LINF,
            {"steps": steps},
            {
                "adv-lib": ("adv_lib", _adv_lib("fmn", eps=False, norm=inf, steps=steps)),
                "foolbox": ("foolbox", _foolbox("LInfFMNAttack", steps=steps)),
            },
            minimal=True,
        ),
        "pdpgd": Algorithm(
            Norm.LINF,
            {"steps": steps},
            {"adv-lib": ("adv_lib", _adv_lib("pdpgd", eps=False, norm=inf, num_steps=steps))},
            minimal=True,
        ),
        "sigma-zero": Algorithm(
            Norm.L0,
            {"steps": steps},
            {"adv-lib": ("adv_lib", _adv_lib("sigma_zero", eps=False, num_steps=steps))},
            minimal=True,
        ),
        "ead": Algorithm(
            Norm.L1,
            {"steps": 9 * steps},
            {
                "foolbox": ("foolbox", _foolbox("EADAttack", binary_search_steps=9, steps=steps)),
                "torchattacks": ("torchattacks", _torchattacks("EADL1", max_iterations=steps)),
            },
            minimal=True,
        ),
        "mi-fgsm": Algorithm(
            Norm.LINF,
            {"steps": steps},
            {
                "torchattacks": ("torchattacks", _torchattacks("MIFGSM", eps=True, steps=steps)),
                "foolbox": ("foolbox", _foolbox("LinfMomentumIterativeFastGradientMethod")),
            },
        ),
    }


def _pyautoattack_apgd(steps: int) -> Build:
    def build(model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        from pyautoattack.autopgd_base import APGDAttack

        attack = APGDAttack(model, n_iter=steps, norm="Linf", eps=eps, n_restarts=1, device="cpu")
        return lambda x, y: _last(attack.perturb(x, y))

    return build


def _pyautoattack_fab(steps: int) -> Build:
    def build(model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        from pyautoattack.fab_pt import FABAttack_PT

        attack = FABAttack_PT(
            model, n_iter=steps, norm="Linf", eps=eps, targeted=True, device="cpu"
        )
        return lambda x, y: _last(attack.perturb(x, y))

    return build


def _pyautoattack_square(queries: int) -> Build:
    def build(model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        from pyautoattack.square import SquareAttack

        attack = SquareAttack(model, n_queries=queries, norm="Linf", eps=eps, device="cpu")
        return lambda x, y: _last(attack.perturb(x, y))

    return build


def _last(found: Any) -> Tensor:
    adv: Tensor = found[-1] if isinstance(found, tuple) else found
    return adv


def _torchattacks(name: str, *, eps: bool = False, **settings: Any) -> Build:
    def build(model: nn.Module, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
        import torchattacks

        more = {"eps": radius} if eps else {}
        attack: Callable[[Tensor, Tensor], Tensor] = getattr(torchattacks, name)(
            model, **more, **settings
        )
        return attack

    return build


def _adv_lib(name: str, *, eps: bool = True, **settings: Any) -> Build:
    def build(model: nn.Module, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
        from adv_lib import attacks

        more = {"eps": radius} if eps else {}
        function = getattr(attacks, name)
        return lambda x, y: function(model, x, y, **more, **settings)  # type: ignore[no-any-return]

    return build


def _foolbox(name: str, **settings: Any) -> Build:
    def build(model: nn.Module, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
        import foolbox

        attack = getattr(foolbox.attacks, name)(**settings)
        minimal = not hasattr(attack, "rel_stepsize")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))

        def run(x: Tensor, y: Tensor) -> Tensor:
            _, clipped, _ = attack(wrapped, x, y, epsilons=None if minimal else radius)
            return clipped  # type: ignore[no-any-return]

        return run

    return build


def _art(name: str, *, eps: bool = True, **settings: Any) -> Build:
    def build(model: nn.Module, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        def run(x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                classes = int(model(x[:1]).shape[1])
            classifier = PyTorchClassifier(
                model=model,
                loss=nn.CrossEntropyLoss(),
                input_shape=tuple(x.shape[1:]),
                nb_classes=classes,
                clip_values=(0.0, 1.0),
                device_type="cpu",
            )
            more = {"eps": radius} if eps else {}
            made = {**more, **settings, "batch_size": len(x), "verbose": False}
            attack = getattr(evasion, name)(classifier, **made)
            return torch.from_numpy(attack.generate(x=x.numpy(), y=y.numpy()))

        return run

    return build


if __name__ == "__main__":
    main()
