"""Attacks of other libraries under our judge: torchattacks, foolbox, ART and adv-lib.

Write LIBRARY:NAME for the attack NAME, with the settings that the library gives it.
"""

from collections.abc import Mapping

from rbl_attacks.peers.foreign import Foreign, Job, Peer
from rbl_attacks.peers.from_adv_lib import AdvLib
from rbl_attacks.peers.from_art import ART
from rbl_attacks.peers.from_foolbox import Foolbox
from rbl_attacks.peers.from_torchattacks import TorchAttacks
from robustbench_lite.errors import unknown

__all__ = ["ART", "AdvLib", "Foolbox", "Foreign", "Job", "Peer", "TorchAttacks"]


def torchattacks(name: str, settings: Mapping[str, object]) -> Foreign:
    """Attacks of torchattacks, as torchattacks:PGD or torchattacks:CW.

    Raises:
        InputError: it has no such attack or setting, or is not installed.
    """
    return _foreign(TorchAttacks, name, settings)


def foolbox(name: str, settings: Mapping[str, object]) -> Foreign:
    """Attacks of foolbox, as foolbox:LinfPGD or foolbox:DDNAttack.

    Raises:
        InputError: it has no such attack or setting, or is not installed.
    """
    return _foreign(Foolbox, name, settings)


def art(name: str, settings: Mapping[str, object]) -> Foreign:
    """Attacks of the Adversarial Robustness Toolbox, as art:ProjectedGradientDescent.

    Raises:
        InputError: it has no such attack or setting, or is not installed.
    """
    return _foreign(ART, name, settings)


def advlib(name: str, settings: Mapping[str, object]) -> Foreign:
    """Attacks of adv-lib, as advlib:fmn or advlib:apgd.

    Raises:
        InputError: it has no such attack or setting, or is not installed.
    """
    return _foreign(AdvLib, name, settings)


def _foreign(cls: type[Foreign], name: str, settings: Mapping[str, object]) -> Foreign:
    if name not in cls.peers:
        raise unknown(f"attack of {cls.library}", name, cls.peers)
    return cls(name=name, settings=tuple(settings.items()))  # type: ignore[arg-type]  # checked there
