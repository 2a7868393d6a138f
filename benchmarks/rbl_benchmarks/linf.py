"""Every pixel a little: the verdict, and the smallest perturbations."""

from rbl_attacks.fmn import FMN
from rbl_attacks.verdict import Verdict

from rbl_benchmarks.usual import everywhere
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

LINF = Suite(
    "linf",
    everywhere(
        lambda eps: (
            Trial("verdict", Verdict(), Lp(Norm.LINF, eps[Norm.LINF])),
            Trial("fmn", FMN(steps=100), Lp(Norm.LINF, eps[Norm.LINF])),
        )
    ),
    summary="Linf at the data set's usual eps: the verdict, and the whole curve below.",
)
