"""Whose attacks conformance.py checks: one a line, with a norm and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustbench_lite.attack import Plan
from robustbench_lite.registry import Kind, load_attack, registered
from robustbench_lite.threat import Norm

OURS = "ours"

# An attack's steps are set to about what the checks allow to one of ours: 90 in all.
_ENTRIES = """
torchattacks:FGSM linf
torchattacks:PGD linf steps=40
torchattacks:MIFGSM linf
torchattacks:DIFGSM linf
torchattacks:APGD linf steps=90
torchattacks:Square linf n_queries=90
torchattacks:PGDL2 l2 steps=40
torchattacks:CW l2 steps=90
torchattacks:DeepFool l2
torchattacks:FAB l2 steps=30
torchattacks:EADL1 l1 binary_search_steps=3 max_iterations=30
torchattacks:SparseFool l0
torchattacks:JSMA l0
torchattacks:OnePixel l0
foolbox:LinfFastGradientAttack linf
foolbox:LinfPGD linf
foolbox:MIFGSM linf
foolbox:LInfFMNAttack linf steps=90
foolbox:L2PGD l2
foolbox:L2CarliniWagnerAttack l2 binary_search_steps=3 steps=30
foolbox:L2DeepFoolAttack l2
foolbox:DDNAttack l2 steps=90
foolbox:L2FMNAttack l2 steps=90
foolbox:NewtonFoolAttack l2 steps=90
foolbox:BoundaryAttack l2 steps=90
foolbox:HopSkipJumpAttack l2 steps=3 initial_gradient_eval_steps=20
foolbox:EADAttack l1 binary_search_steps=3 steps=30
foolbox:L0FMNAttack l0 steps=90
art:FastGradientMethod linf
art:ProjectedGradientDescent linf max_iter=40
art:AutoProjectedGradientDescent linf max_iter=90 nb_random_init=1
art:SquareAttack linf max_iter=90
art:CarliniLInfMethod linf
art:CarliniL2Method l2 binary_search_steps=3 max_iter=30
art:DeepFool l2 max_iter=90
art:NewtonFool l2 max_iter=90
art:SimBA l2 max_iter=90
art:BoundaryAttack l2 max_iter=9
art:HopSkipJump l2 max_iter=3 max_eval=100 init_eval=20
art:ElasticNet l1 binary_search_steps=3 max_iter=30
art:SaliencyMapMethod l0
art:PixelAttack l0 max_iter=9
advlib:pgd_linf linf
advlib:apgd linf n_iter=90
advlib:carlini_wagner_linf linf max_iterations=90
advlib:carlini_wagner_l2 l2 binary_search_steps=3 max_iterations=30
advlib:ddn l2 steps=90
advlib:df l2
advlib:sdf l2
advlib:fmn l2 steps=90
advlib:fab l2 n_iter=30
advlib:alma l2 num_steps=90
advlib:tr l2
advlib:pdpgd l1 num_steps=90
advlib:sigma_zero l0 num_steps=90
advlib:vfga l0
fgsm linf
pgd linf
mi-fgsm linf
apgd linf
square linf
cw l2
deepfool l2
ddn l2
fmn l2
hopskipjump l2
ead l1
one-pixel l0
"""


@dataclass(frozen=True)
class Entry:
    """One attack to be checked, in one norm."""

    attack: str
    norm: str
    settings: tuple[str, ...]

    @staticmethod
    def parse(line: str) -> Entry:
        """From `ATTACK NORM [KEY=VALUE ...]`."""
        attack, norm, *settings = line.split()
        return Entry(attack, Norm(norm), tuple(settings))

    @property
    def library(self) -> str:
        """Whose it is."""
        library, colon, _ = self.attack.partition(":")
        return library if colon else OURS

    def plan(self) -> Plan:
        """The attack; other libraries' need no entry point."""
        settings = dict(text.split("=", 1) for text in self.settings)
        library, colon, name = self.attack.partition(":")
        if not colon:
            return load_attack(self.attack, **settings)
        from rbl_attacks import peers

        plan: Plan = getattr(peers, library)(name, settings)
        return plan

    def command(self, checks: Sequence[str]) -> str:
        """What repeats some checks."""
        told = "".join(f" --set {text}" for text in self.settings)
        named = "".join(f" --check {check}" for check in checks)
        return f"rbl validate {self.attack}{told} --norm {self.norm}{named}"


def entries() -> Iterator[Entry]:
    """All of them but ours that are not registered."""
    here = registered(Kind.ATTACKS)
    for line in _ENTRIES.strip().splitlines():
        entry = Entry.parse(line)
        if entry.library != OURS or entry.attack in here:
            yield entry
