"""Euclidean distance: the verdict, and the smallest perturbations."""

from rbl_attacks.ddn import DDN
from rbl_attacks.verdict import Verdict

from rbl_benchmarks.usual import everywhere
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

L2 = Suite(
    "l2",
    everywhere(
        lambda eps: (
            Trial("verdict", Verdict(), Lp(Norm.L2, eps[Norm.L2])),
            Trial("ddn", DDN(steps=100), Lp(Norm.L2, eps[Norm.L2])),
        )
    ),
    summary="L2 at the data set's usual eps: the verdict, and the whole curve below.",
)
