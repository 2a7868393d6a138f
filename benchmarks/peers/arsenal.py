"""Who takes part in the comparison of strength: minimal-size attacks, ours and the peers'.

Everybody is configured to use the whole budget of forward plus backward passes and otherwise left
at its defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from contenders import art_classifier
from subject import Subject
from torch import Tensor, nn

from robustbench_lite.attack import Plan
from robustbench_lite.judge import evaluate
from robustbench_lite.registry import Kind, load_attack, registered
from robustbench_lite.results import Outcome
from robustbench_lite.threat import Lp, Norm

Peer = Callable[[nn.Module, Tensor, Tensor], Tensor | None]

_P = {Norm.L0: 0, Norm.L1: 1, Norm.L2: 2, Norm.LINF: float("inf")}


@dataclass(frozen=True)
class Contender:
    """One attack: a plan of ours, or a peer's function."""

    name: str
    plan: Plan | None = None
    peer: Peer | None = None

    @property
    def ours(self) -> bool:
        """Is it one of ours?"""
        return self.plan is not None

    def evaluate(self, subject: Subject, threat: Lp) -> Outcome:
        """Our judge's outcome for a plan of ours."""
        assert self.plan is not None
        return evaluate(
            subject.model, self.plan, threat, subject.data, batch_size=subject.batch, seed=0
        )

    def attack(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
        """The peer's adversarial examples."""
        assert self.peer is not None
        return self.peer(model, x, y)


def contenders(norm: Norm, budget: int) -> list[Contender]:
    """Everybody who works in a norm."""
    return [*_ours(norm, budget), *_peers(norm, budget)]


def _ours(norm: Norm, budget: int) -> list[Contender]:
    pairs = budget // 2 - 2
    wanted: dict[str, tuple[set[Norm], dict[str, object]]] = {
        "fmn": (set(Norm), {"steps": pairs}),
        "pdpgd": ({Norm.L1, Norm.L2, Norm.LINF}, {"steps": pairs}),
        "ddn": ({Norm.L2}, {"steps": pairs}),
        "cw": ({Norm.L2}, {"steps": pairs, "patience": 9}),
        "ead": ({Norm.L1}, {"steps": pairs, "searches": 6, "patience": 9}),
        "sigma-zero": ({Norm.L0}, {"steps": pairs}),
        "fab": ({Norm.L1, Norm.L2, Norm.LINF}, {"steps": pairs}),
        "fab-u": ({Norm.L1, Norm.L2, Norm.LINF}, {"steps": budget // 11 - 2}),
        "deepfool": ({Norm.L2, Norm.LINF}, {}),
        "superdeepfool": ({Norm.L2}, {}),
    }
    return [
        Contender(f"ours {name}", plan=load_attack(name, **fields))
        for name, (norms, fields) in wanted.items()
        if norm in norms and name in registered(Kind.ATTACKS)
    ]


def _peers(norm: Norm, budget: int) -> list[Contender]:
    found: list[Contender] = []
    if find_spec("adv_lib"):
        found += [Contender(f"adv-lib {n}", peer=p) for n, p in _adv_lib(norm, budget).items()]
    if find_spec("foolbox"):
        found += [Contender(f"foolbox {n}", peer=p) for n, p in _foolbox(norm, budget).items()]
    if find_spec("torchattacks"):
        known = _torchattacks(norm, budget).items()
        found += [Contender(f"torchattacks {n}", peer=p) for n, p in known]
    if find_spec("art"):
        found += [Contender(f"art {n}", peer=p) for n, p in _art(norm, budget).items()]
    return found


def _adv_lib(norm: Norm, budget: int) -> dict[str, Peer]:
    from adv_lib import attacks
    from adv_lib.attacks.auto_pgd import minimal_apgd

    pairs, p = budget // 2 - 1, _P[norm]
    made: dict[str, Peer] = {
        "fmn": lambda m, x, y: attacks.fmn(m, x, y, norm=p, steps=pairs),
    }
    if norm is Norm.L0:
        made["sigma_zero"] = lambda m, x, y: attacks.sigma_zero(m, x, y, num_steps=pairs)
        made["vfga"] = lambda m, x, y: attacks.vfga(m, x, y, targeted=False)
        made["pdpgd"] = lambda m, x, y: attacks.pdpgd(m, x, y, norm=0, num_steps=pairs)
    if norm is not Norm.L0:
        made["pdpgd"] = lambda m, x, y: attacks.pdpgd(m, x, y, norm=p, num_steps=pairs)
        made["fab"] = lambda m, x, y: attacks.fab(m, x, y, norm=p, n_iter=budget // 12)
        eps0 = {Norm.L1: 25.0, Norm.L2: 2.0, Norm.LINF: 0.3}[norm]
        made["apgd minimal"] = lambda m, x, y: minimal_apgd(
            m, x, y, norm=p, max_eps=eps0, binary_search_steps=10, n_iter=budget // 22
        )
    if norm in (Norm.L2, Norm.LINF):
        made["tr"] = lambda m, x, y: attacks.tr(m, x, y, p=p, iter=budget // 3)
        made["deepfool"] = lambda m, x, y: attacks.df(m, x, y, norm=p)
    if norm in (Norm.L1, Norm.L2):
        made["alma"] = lambda m, x, y: attacks.alma(
            m, x, y, distance=f"l{p}", num_steps=pairs, α=0.9 if norm is Norm.L2 else 0.5
        )
    if norm is Norm.L2:
        made["ddn"] = lambda m, x, y: attacks.ddn(m, x, y, steps=pairs, levels=None)
        made["sdf"] = lambda m, x, y: attacks.sdf(m, x, y)
        made["pdgd"] = lambda m, x, y: attacks.pdgd(m, x, y, num_steps=pairs)
        made["cw"] = lambda m, x, y: attacks.carlini_wagner_l2(
            m, x, y, binary_search_steps=9, max_iterations=budget // 18
        )
    if norm is Norm.LINF:
        made["cw"] = lambda m, x, y: attacks.carlini_wagner_linf(m, x, y, max_iterations=100)
    return made


def _foolbox(norm: Norm, budget: int) -> dict[str, Peer]:
    from foolbox import PyTorchModel, attacks

    pairs, name = budget // 2 - 1, {Norm.LINF: "LInf"}.get(norm, str(norm).upper())
    chosen: dict[str, Any] = {"FMN": getattr(attacks, f"{name}FMNAttack")(steps=pairs)}
    full = {Norm.LINF: "Linfinity"}.get(norm, str(norm).upper())
    if find_spec("numba"):
        chosen["BrendelBethge"] = getattr(attacks, f"{full}BrendelBethgeAttack")(steps=pairs)
    if norm is Norm.L2:
        chosen["DDN"] = attacks.DDNAttack(steps=pairs)
        chosen["CW"] = attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=budget // 18)
        chosen["DeepFool"] = attacks.L2DeepFoolAttack()
    if norm is Norm.LINF:
        chosen["DeepFool"] = attacks.LinfDeepFoolAttack()
    if norm is Norm.L1:
        chosen["EAD"] = attacks.EADAttack(binary_search_steps=9, steps=budget // 18)

    def wrapped(attack: Any) -> Peer:
        def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            fmodel = PyTorchModel(model.eval(), bounds=(0, 1), device=x.device)
            _, clipped, _ = attack(fmodel, x, y, epsilons=None)
            return clipped  # type: ignore[no-any-return]

        return run

    return {name: wrapped(attack) for name, attack in chosen.items()}


def _torchattacks(norm: Norm, budget: int) -> dict[str, Peer]:
    import torchattacks

    pairs = budget // 2 - 1
    made: dict[str, Peer] = {}
    if norm is Norm.L2:
        made["CW"] = lambda m, x, y: torchattacks.CW(m, steps=pairs)(x, y)
        made["DeepFool"] = lambda m, x, y: torchattacks.DeepFool(m)(x, y)
    if norm is Norm.L1:
        made["EADL1"] = lambda m, x, y: torchattacks.EADL1(m, max_iterations=budget // 18)(x, y)
    if norm is not Norm.L0:
        name = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}[norm]
        made["FAB"] = lambda m, x, y: torchattacks.FAB(
            m, norm=name, eps=1e3, steps=budget // 12, n_classes=10
        )(x, y)
    if norm is Norm.L0:
        made["SparseFool"] = lambda m, x, y: torchattacks.SparseFool(m)(x, y)
    return made


def _art(norm: Norm, budget: int) -> dict[str, Peer]:
    from art.attacks import evasion

    chosen: dict[str, Callable[[Any, int], Any]] = {}
    if norm is Norm.L2:
        chosen["DeepFool"] = lambda c, n: evasion.DeepFool(c, batch_size=n, verbose=False)
        chosen["CW"] = lambda c, n: evasion.CarliniL2Method(
            c, binary_search_steps=9, max_iter=budget // 18, batch_size=n, verbose=False
        )
    if norm is Norm.L1:
        chosen["EAD"] = lambda c, n: evasion.ElasticNet(
            c, binary_search_steps=9, max_iter=budget // 18, batch_size=n, verbose=False
        )

    def wrapped(build: Callable[[Any, int], Any]) -> Peer:
        def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            classifier = art_classifier(model, x)
            return torch.from_numpy(build(classifier, len(x)).generate(x=x.numpy(), y=y.numpy()))

        return run

    return {name: wrapped(build) for name, build in chosen.items()}
