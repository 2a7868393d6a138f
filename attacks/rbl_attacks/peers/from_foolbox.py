"""foolbox (Rauber et al. 2017, arXiv:1707.04131): attack(model, x, criterion, epsilons)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rbl_attacks.peers.foreign import Foreign, Job, Peer, imported
from robustbench_lite.threat import Access, Norm

_OF_NAME = {"L0": Norm.L0, "L1": Norm.L1, "L2": Norm.L2, "Linf": Norm.LINF}
_ANY: Mapping[Norm, Mapping[str, object]] = {norm: {"distance": str(norm)} for norm in Norm}


def _fixed(norm: Norm) -> Peer:
    return Peer({norm: {}})


def _least(norm: Norm) -> Peer:
    return Peer({norm: {}}, minimal=True)


def _noise(norm: Norm) -> Peer:
    return Peer({norm: {}}, needs=Access.DECISIONS)


def _each(pattern: str, norms: str, make: Callable[[Norm], Peer]) -> dict[str, Peer]:
    return {pattern.format(text): make(_OF_NAME[text]) for text in norms.split()}


_DECISIONS = Peer(_ANY, minimal=True, needs=Access.DECISIONS)

PEERS: Mapping[str, Peer] = {
    "FGM": _fixed(Norm.L2),
    "FGSM": _fixed(Norm.LINF),
    "PGD": _fixed(Norm.LINF),
    "AdamPGD": _fixed(Norm.LINF),
    "MIFGSM": _fixed(Norm.LINF),
    **_each("{}PGD", "L1 L2 Linf", _fixed),
    **_each("{}AdamPGD", "L1 L2 Linf", _fixed),
    **_each("{}FastGradientAttack", "L1 L2 Linf", _fixed),
    **_each("{}BasicIterativeAttack", "L1 L2 Linf", _fixed),
    **_each("{}AdamBasicIterativeAttack", "L1 L2 Linf", _fixed),
    **_each("{}ProjectedGradientDescentAttack", "L1 L2 Linf", _fixed),
    **_each("{}AdamProjectedGradientDescentAttack", "L1 L2 Linf", _fixed),
    **_each("{}MomentumIterativeFastGradientMethod", "L1 L2 Linf", _fixed),
    "SparseL1DescentAttack": _fixed(Norm.L1),
    "VirtualAdversarialAttack": Peer({Norm.L2: {}}, targetable=False),
    "L2ContrastReductionAttack": _noise(Norm.L2),
    **_each("{}AdditiveUniformNoiseAttack", "L2 Linf", _noise),
    **_each("{}RepeatedAdditiveUniformNoiseAttack", "L2 Linf", _noise),
    "L2AdditiveGaussianNoiseAttack": _noise(Norm.L2),
    "L2RepeatedAdditiveGaussianNoiseAttack": _noise(Norm.L2),
    "L2ClippingAwareAdditiveGaussianNoiseAttack": _noise(Norm.L2),
    "L2ClippingAwareAdditiveUniformNoiseAttack": _noise(Norm.L2),
    "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack": _noise(Norm.L2),
    "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack": _noise(Norm.L2),
    "DDNAttack": _least(Norm.L2),
    "EADAttack": _least(Norm.L1),
    "L2CarliniWagnerAttack": _least(Norm.L2),
    "NewtonFoolAttack": Peer({Norm.L2: {}}, minimal=True, targetable=False),
    **_each("{}DeepFoolAttack", "L2 Linf", lambda n: replace(_least(n), targetable=False)),
    **_each("{}FMNAttack", "L0 L1 L2", _least),
    "LInfFMNAttack": _least(Norm.LINF),
    **_each("{}BrendelBethgeAttack", "L0 L1 L2", _least),
    "LinfinityBrendelBethgeAttack": _least(Norm.LINF),
    "BoundaryAttack": Peer({Norm.L2: {}}, minimal=True, needs=Access.DECISIONS),
    "HopSkipJumpAttack": Peer(
        {Norm.L2: {"constraint": "l2"}, Norm.LINF: {"constraint": "linf"}},
        minimal=True,
        needs=Access.DECISIONS,
    ),
    "SaltAndPepperNoiseAttack": Peer(
        {Norm.L2: {}}, minimal=True, needs=Access.DECISIONS, targetable=False
    ),
    "PointwiseAttack": Peer({Norm.L0: {}, Norm.L2: {}}, minimal=True, needs=Access.DECISIONS),
    "GaussianBlurAttack": _DECISIONS,
    "InversionAttack": _DECISIONS,
    "BinarySearchContrastReductionAttack": _DECISIONS,
    "LinearSearchContrastReductionAttack": _DECISIONS,
    "LinearSearchBlendedUniformNoiseAttack": _DECISIONS,
}


@dataclass(frozen=True, kw_only=True)
class Foolbox(Foreign):
    """An attack of foolbox."""

    library = "foolbox"
    module = "foolbox.attacks"
    distribution = "foolbox"
    peers = PEERS
    reserved = frozenset({"distance", "constraint", "init_attack", "tensorboard", "channel_axis"})

    def implied(self, job: Job) -> Mapping[str, object]:
        """No files written on the way."""
        return {"tensorboard": False}

    def run(self, job: Job) -> Any:
        """Build it and call it; at a fixed eps, its own clipping to eps included."""
        foolbox = imported("foolbox", self.library)
        told = self.arguments(job)
        if "distance" in told:
            told["distance"] = getattr(foolbox.distances, str(told["distance"]))
        attack = self.function()(**told)
        aim = foolbox.criteria.TargetedMisclassification if job.targeted else None
        criterion = (aim or foolbox.criteria.Misclassification)(job.y)
        model = foolbox.PyTorchModel(job.module, bounds=(0, 1), device=job.x.device)
        eps = None if self.minimal else job.eps
        return attack(model, job.x, criterion, epsilons=eps)[1]
