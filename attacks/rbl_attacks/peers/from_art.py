"""ART (Nicolae et al. 2018, arXiv:1807.01069): attack(classifier, settings).generate(arrays)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rbl_attacks.peers.foreign import Foreign, Job, Peer, imported
from robustbench_lite.threat import Access, Norm

_P: Mapping[Norm, float] = {Norm.L0: 0, Norm.L1: 1, Norm.L2: 2, Norm.LINF: math.inf}
_LINF: Mapping[Norm, Mapping[str, object]] = {Norm.LINF: {}}
_L2: Mapping[Norm, Mapping[str, object]] = {Norm.L2: {}}
_L1: Mapping[Norm, Mapping[str, object]] = {Norm.L1: {}}
_L0: Mapping[Norm, Mapping[str, object]] = {Norm.L0: {}}


def _of(*norms: Norm) -> Mapping[Norm, Mapping[str, object]]:
    return {norm: {"norm": _P[norm]} for norm in norms}


_TWO = _of(Norm.L2, Norm.LINF)
_THREE = _of(Norm.L1, Norm.L2, Norm.LINF)
_STEPS = Peer(_THREE, eps="eps", scaled=("eps_step",))
_AUTO = Peer(_THREE, eps="eps", scaled=("eps_step",), zero=False)

PEERS: Mapping[str, Peer] = {
    "FastGradientMethod": _STEPS,
    "BasicIterativeMethod": Peer(_LINF, eps="eps", scaled=("eps_step",)),
    "ProjectedGradientDescent": _STEPS,
    "ProjectedGradientDescentNumpy": _STEPS,
    "ProjectedGradientDescentPyTorch": _STEPS,
    "MomentumIterativeMethod": _STEPS,
    "AutoProjectedGradientDescent": _AUTO,
    "AutoConjugateGradient": _AUTO,
    "RescalingAutoConjugateGradient": _AUTO,
    "AutoAttack": Peer(_TWO, eps="eps", scaled=("eps_step",), zero=False, targetable=False),
    "SquareAttack": Peer(_TWO, eps="eps", zero=False, targetable=False, needs=Access.SCORES),
    "VirtualAdversarialMethod": Peer(
        _L2, eps="eps", zero=False, targetable=False, needs=Access.SCORES, probabilities=True
    ),
    "CarliniL2Method": Peer(_L2, minimal=True),
    "CarliniLInfMethod": Peer(_LINF, minimal=True),
    "CarliniL0Method": Peer(_L0, minimal=True),
    "ElasticNet": Peer(_L1, minimal=True),
    "DeepFool": Peer(_L2, minimal=True, targetable=False),
    "NewtonFool": Peer(_L2, minimal=True, targetable=False),
    "SaliencyMapMethod": Peer(_L0, minimal=True, blind=True),
    "BrendelBethgeAttack": Peer(_of(*Norm), minimal=True),
    "SimBA": Peer(_L2, minimal=True, needs=Access.SCORES, probabilities=True, batched=False),
    "ZooAttack": Peer(_L2, minimal=True, needs=Access.SCORES, batched=False),
    "PixelAttack": Peer(_L0, eps="th", pixels=True, needs=Access.SCORES),
    "ThresholdAttack": Peer(_LINF, minimal=True, needs=Access.SCORES),
    "BoundaryAttack": Peer(_L2, minimal=True, needs=Access.DECISIONS),
    "HopSkipJump": Peer(_TWO, minimal=True, needs=Access.DECISIONS),
    "SignOPTAttack": Peer(_L2, minimal=True, targetable=False, needs=Access.DECISIONS),
    "GeoDA": Peer(_THREE, minimal=True, targetable=False, needs=Access.DECISIONS),
}


@dataclass(frozen=True, kw_only=True)
class ART(Foreign):
    """An attack of the Adversarial Robustness Toolbox.

    A batch size that is not given is the whole batch, where the library's own default is often 1.
    """

    library = "art"
    module = "art.attacks.evasion"
    distribution = "adversarial-robustness-toolbox"
    peers = PEERS
    reserved = frozenset(
        {"estimator", "classifier", "norm", "targeted", "verbose", "verbose_es", "eps"}
        | {"summary_writer", "estimator_orig", "attacks", "parallel_pool_size", "mask"}
    )

    def implied(self, job: Job) -> Mapping[str, object]:
        """The goal, silence and whole batches."""
        together = len(job.x) if self.peer.batched else 1
        return {"targeted": job.targeted, "verbose": False, "batch_size": together}

    def run(self, job: Job) -> Any:
        """Build a classifier of ART around the module and attack it; arrays in, arrays out."""
        classification = imported("art.estimators.classification", self.library)
        classifier = classification.PyTorchClassifier(
            model=job.module,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(job.x.shape[1:]),
            nb_classes=job.classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if job.x.device.type == "cpu" else "gpu",
        )
        attack = self.function()(classifier, **self.arguments(job))
        onehot = nn.functional.one_hot(job.y, job.classes).float().cpu().numpy()
        told = None if self.peer.blind and not job.targeted else onehot
        return attack.generate(x=job.x.cpu().numpy(), y=told)
