"""A few seconds: does it all work?"""

from rbl_attacks.fgsm import FGSM
from rbl_attacks.fmn import FMN
from rbl_attacks.pgd import PGD

from rbl_benchmarks.usual import everywhere
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

SMOKE = Suite(
    "smoke",
    everywhere(
        lambda eps: (
            Trial("fgsm", FGSM(), Lp(Norm.LINF, eps[Norm.LINF])),
            Trial("pgd", PGD(steps=10), Lp(Norm.LINF, eps[Norm.LINF])),
            Trial("fmn", FMN(steps=10), Lp(Norm.LINF, eps[Norm.LINF])),
        )
    ),
    summary="Three short attacks on 60 samples, to see whether all works.",
    n=60,
    slice=20,
)
