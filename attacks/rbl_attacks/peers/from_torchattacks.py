"""torchattacks (Kim 2020, arXiv:2010.01950): classes of (model, settings), called with a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbl_attacks.peers.foreign import Foreign, Job, Peer
from robustbench_lite.threat import Access, Norm

_LINF: Mapping[Norm, Mapping[str, object]] = {Norm.LINF: {}}
_L2: Mapping[Norm, Mapping[str, object]] = {Norm.L2: {}}
_L0: Mapping[Norm, Mapping[str, object]] = {Norm.L0: {}}
_EITHER: Mapping[Norm, Mapping[str, object]] = {
    Norm.LINF: {"norm": "Linf"},
    Norm.L2: {"norm": "L2"},
}
_STEPS = Peer(_LINF, eps="eps", scaled=("alpha",))
_STEPS_L2 = Peer(_L2, eps="eps", scaled=("alpha",))

PEERS: Mapping[str, Peer] = {
    "FGSM": Peer(_LINF, eps="eps"),
    "FFGSM": _STEPS,
    "BIM": _STEPS,
    "RFGSM": _STEPS,
    "PGD": _STEPS,
    "EOTPGD": _STEPS,
    "TPGD": Peer(_LINF, eps="eps", scaled=("alpha",), targetable=False),
    "UPGD": _STEPS,
    "PGDRS": _STEPS,
    "MIFGSM": _STEPS,
    "NIFGSM": _STEPS,
    "SINIFGSM": _STEPS,
    "VMIFGSM": _STEPS,
    "VNIFGSM": _STEPS,
    "DIFGSM": _STEPS,
    "TIFGSM": _STEPS,
    "Jitter": _STEPS,
    "PIFGSM": Peer(_LINF, eps="max_epsilon", targetable=False),
    "PIFGSMPP": Peer(_LINF, eps="max_epsilon"),
    "SPSA": Peer(_LINF, eps="eps", needs=Access.SCORES),
    "PGDL2": _STEPS_L2,
    "PGDRSL2": _STEPS_L2,
    "APGD": Peer(_EITHER, eps="eps", targetable=False),
    "APGDT": Peer(_EITHER, eps="eps", targetable=False),
    "AutoAttack": Peer(_EITHER, eps="eps", targetable=False),
    "Square": Peer(_EITHER, eps="eps", needs=Access.SCORES),
    "FAB": Peer(_EITHER, eps="eps", minimal=True, targetable=False),
    "CW": Peer(_L2, minimal=True),
    "DeepFool": Peer(_L2, minimal=True, targetable=False),
    "EADEN": Peer(_L2, minimal=True),
    "EADL1": Peer({Norm.L1: {}}, minimal=True),
    "SparseFool": Peer(_L0, minimal=True, targetable=False),
    "JSMA": Peer(_L0, minimal=True),
    "OnePixel": Peer(_L0, eps="pixels", pixels=True, needs=Access.SCORES),
    "Pixle": Peer(_L0, minimal=True, needs=Access.SCORES),
}


@dataclass(frozen=True, kw_only=True)
class TorchAttacks(Foreign):
    """An attack of torchattacks."""

    library = "torchattacks"
    module = "torchattacks"
    distribution = "torchattacks"
    peers = PEERS
    reserved = frozenset({"model", "norm", "seed", "n_classes", "verbose"})

    def implied(self, job: Job) -> Mapping[str, object]:
        """The seed, and how many classes there are to try."""
        return {"seed": job.seed, "n_classes": job.classes, "verbose": False}

    def run(self, job: Job) -> Any:
        """Build it and call it."""
        attack = self.function()(job.module, **self.arguments(job))
        if job.targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(job.x, job.y)
