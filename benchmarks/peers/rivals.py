"""Who is set beside whom in verdict.py: our verdict, and what others would run in its place.

Every peer stays at its defaults, but for norm, eps, seed, number of classes and batch size. All of
them, and ours, search on the prepared copy, made within the clock; `pyautoattack-as-is` searches on
the model itself, as its users have it do. Libraries are imported before.
Two defaults are not AutoAttack's: torchattacks gives its ascents and FAB 10 steps instead of 100,
and ART's first step is 0.1 whatever eps is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
from contenders import art_classifier
from subject import Subject
from torch import Tensor, nn
from verdicts import THEIRS, theirs

from robustbench_lite.attack import Attack, Plan
from robustbench_lite.classifier import Classifier
from robustbench_lite.judge import evaluate
from robustbench_lite.prepared import prepare
from robustbench_lite.registry import load_attack
from robustbench_lite.threat import Lp, Norm

Claim = tuple[Tensor, str]

_NAMES = {Norm.LINF: "Linf", Norm.L2: "L2"}
_ORDERS = {Norm.LINF: math.inf, Norm.L2: 2}


@dataclass(frozen=True)
class Rival:
    """One contender.

    Args:
        package: what PyPI calls it.
        modules: what it needs, imported before the clock starts.
        run: (subject, threat, seed) to adversarial examples (N, ...) and what it tells.
    """

    package: str
    modules: tuple[str, ...]
    run: Callable[[Subject, Lp, int], Claim]

    @property
    def installed(self) -> bool:
        """Is all of it there?"""
        return all(find_spec(module.partition(".")[0]) for module in self.modules)

    @property
    def version(self) -> str:
        """The number of the package."""
        return version(self.package)

    def load(self) -> None:
        """Import it, so that this is not timed."""
        for module in self.modules:
            import_module(module)


# ---- ours ------------------------------------------------------------------------------------


def _judged(plan: Attack | Plan, subject: Subject, threat: Lp, seed: int) -> Claim:
    outcome = evaluate(
        subject.model, plan, threat, subject.data, batch_size=subject.batch, seed=seed
    )
    return outcome.adversarials, "; ".join([str(outcome.trust), *map(str, outcome.doubts)])


def _effort(effort: str) -> Callable[[Subject, Lp, int], Claim]:
    def run(subject: Subject, threat: Lp, seed: int) -> Claim:
        return _judged(load_attack("verdict", effort=effort), subject, threat, seed)

    return run


def _malt(subject: Subject, threat: Lp, seed: int) -> Claim:
    """The rule of arXiv:2407.02240 with our ascent: 100 steps a class, 9 classes among 100."""
    from rbl_attacks.apgd_t import APGDT, Order

    targets = min(9, subject.classes - 1)
    plan = APGDT(steps=100 * targets, targets=targets, order=Order.MALT, candidates=100)
    return _judged(plan, subject, threat, seed)


# ---- theirs ----------------------------------------------------------------------------------


def _prepared(subject: Subject) -> nn.Module:
    assert isinstance(subject.model, Classifier)
    return prepare(subject.model, subject.x[:32])


def _pyautoattack(subject: Subject, threat: Lp, seed: int) -> Claim:
    adv, _, course = theirs(subject, threat, seed)
    return adv, course


def _as_is(subject: Subject, threat: Lp, seed: int) -> Claim:
    """The same without what our preparation of the model saves."""
    adv, _, course = theirs(subject, threat, seed, as_is=True)
    return adv, course


def _torchattacks(subject: Subject, threat: Lp, seed: int) -> Claim:
    """AutoAttack's standard version, batches by the user."""
    import torchattacks

    attack = torchattacks.AutoAttack(
        _prepared(subject),
        norm=_NAMES[threat.norm],
        eps=threat.eps,
        version="standard",
        n_classes=subject.classes,
        seed=seed,
    )
    return torch.cat([attack(x, y) for x, y in subject.batches()]), ""


def _art(subject: Subject, threat: Lp, seed: int) -> Claim:
    """AutoAttack with its own composition and progress bars off; tells what each part broke."""
    from art.attacks.evasion import AutoAttack

    np.random.seed(seed)
    attack = AutoAttack(
        art_classifier(_prepared(subject), subject.x),
        norm=_ORDERS[threat.norm],
        eps=threat.eps,
        batch_size=subject.batch,
    )
    for part in attack.attacks:
        part.set_params(verbose=False)
    adv = attack.generate(x=subject.x.numpy(), y=subject.y.numpy())
    broke = Counter(attack.best_attacks.tolist())
    parts = [f"{type(part).__name__} {broke[i]}" for i, part in enumerate(attack.attacks)]
    return torch.from_numpy(adv), "; ".join(parts)


def _adv_lib(subject: Subject, threat: Lp, seed: int) -> Claim:
    """APGD-T, by default 100 steps towards every other class; batches by the user."""
    from adv_lib.attacks.auto_pgd import apgd_targeted

    torch.manual_seed(seed)
    model, norm = _prepared(subject), float(_ORDERS[threat.norm])
    found = [apgd_targeted(model, x, y, threat.eps, norm) for x, y in subject.batches()]
    return torch.cat(found), ""


_OURS = "robustbench-lite"

EFFORTS: dict[str, Rival] = {
    effort: Rival(_OURS, ("rbl_attacks.verdict",), _effort(effort))
    for effort in ("quick", "standard")
}
PEERS: dict[str, Rival] = {
    THEIRS: Rival("pyautoattack", ("pyautoattack",), _pyautoattack),
    f"{THEIRS}-as-is": Rival("pyautoattack", ("pyautoattack",), _as_is),
    "torchattacks": Rival("torchattacks", ("torchattacks",), _torchattacks),
    "art": Rival("adversarial-robustness-toolbox", ("art.attacks.evasion", "multiprocess"), _art),
    "adv-lib": Rival("adv-lib", ("adv_lib.attacks.auto_pgd",), _adv_lib),
    "malt": Rival(_OURS, ("rbl_attacks.apgd_t",), _malt),
}
