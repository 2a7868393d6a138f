"""The attacks that come with robustbench-lite, one a file."""

from rbl_attacks.cw import CW
from rbl_attacks.fgsm import FGSM
from rbl_attacks.pgd import PGD

__all__ = ["CW", "FGSM", "PGD"]
