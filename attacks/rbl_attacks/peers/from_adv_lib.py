"""adv-lib (Rony and Ben Ayed 2020): functions of (model, inputs, labels, settings)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rbl_attacks.peers.foreign import Foreign, Job, Peer, imported
from robustbench_lite.threat import Norm

_P: Mapping[Norm, float] = {Norm.L0: 0, Norm.L1: 1, Norm.L2: 2, Norm.LINF: math.inf}
_LINF: Mapping[Norm, Mapping[str, object]] = {Norm.LINF: {}}
_L2: Mapping[Norm, Mapping[str, object]] = {Norm.L2: {}}
_L0: Mapping[Norm, Mapping[str, object]] = {Norm.L0: {}}


def _of(*norms: Norm, key: str = "norm") -> Mapping[Norm, Mapping[str, object]]:
    return {norm: {key: _P[norm]} for norm in norms}


_THREE = _of(Norm.L1, Norm.L2, Norm.LINF)

PEERS: Mapping[str, Peer] = {
    "alma": Peer({n: {"distance": str(n)} for n in (Norm.L1, Norm.L2)}, minimal=True),
    "apgd": Peer(_THREE, eps="eps"),
    "apgd_targeted": Peer(_THREE, eps="eps", targetable=False),
    "minimal_apgd": Peer(_THREE, eps="max_eps", minimal=True, targetable=False),
    "carlini_wagner_l2": Peer(_L2, minimal=True),
    "carlini_wagner_linf": Peer(_LINF, minimal=True),
    "ddn": Peer(_L2, minimal=True),
    "df": Peer(_of(Norm.L2, Norm.LINF), minimal=True, targetable=False),
    "fab": Peer(_THREE, minimal=True, targetable=False),
    "fmn": Peer(_of(*Norm), minimal=True),
    "pdgd": Peer(_L2, minimal=True),
    "pdpgd": Peer(_of(*Norm), minimal=True),
    "pgd_linf": Peer(_LINF, eps="ε"),
    "sdf": Peer(_L2, minimal=True, targetable=False),
    "sigma_zero": Peer(_L0, minimal=True, targetable=False),
    "str_attack": Peer(_L2, minimal=True),
    "tr": Peer(_of(Norm.L2, Norm.LINF, key="p"), minimal=True, targetable=False),
    "fga": Peer(_L0, minimal=True),
    "vfga": Peer(_L0, minimal=True),
}


@dataclass(frozen=True, kw_only=True)
class AdvLib(Foreign):
    """An attack of adv-lib (the adversarial-library)."""

    library = "advlib"
    module = "adv_lib.attacks"
    distribution = "adv-lib"
    peers = PEERS
    reserved = frozenset(
        {"model", "inputs", "labels", "targeted", "norm", "p", "distance", "callback"}
        | {"starting_points", "return_unsuccessful", "return_targets"}
    )

    def function(self) -> Callable[..., Any]:
        """The library's function; one of them is not among its public names."""
        if self.name != "minimal_apgd":
            return super().function()
        return imported("adv_lib.attacks.auto_pgd", self.library).minimal_apgd  # type: ignore[no-any-return]

    def implied(self, job: Job) -> Mapping[str, object]:
        """The goal."""
        return {"targeted": job.targeted}

    def run(self, job: Job) -> Any:
        """Call it."""
        return self.function()(job.module, job.x, job.y, **self.arguments(job))
