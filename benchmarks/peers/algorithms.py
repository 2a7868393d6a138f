"""The algorithms that speed.py times, ours and every peer's version, with equal settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from contenders import art_classifier
from torch import Tensor, nn

from robustbench_lite.threat import Norm

Build = Callable[[nn.Module, float], Callable[[Tensor, Tensor], Tensor]]


@dataclass(frozen=True)
class Algorithm:
    """Ours, and a builder a peer: (model, eps) to a function of images and labels."""

    norm: Norm
    ours: dict[str, object]
    peers: dict[str, tuple[str, Build]]
    minimal: bool = False


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
            {"steps": 6 * steps},
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
                "foolbox": (
                    "foolbox",
                    _foolbox("LinfMomentumIterativeFastGradientMethod", steps=steps),
                ),
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

        def run(x: Tensor, y: Tensor) -> Tensor:
            classifier = art_classifier(model, x)
            more = {"eps": radius} if eps else {}
            made = {**more, **settings, "batch_size": len(x), "verbose": False}
            attack = getattr(evasion, name)(classifier, **made)
            return torch.from_numpy(attack.generate(x=x.numpy(), y=y.numpy()))

        return run

    return build
