"""Few components, each as much as one likes: the smallest number that is enough."""

from rbl_attacks.fmn import FMN
from rbl_attacks.sigma_zero import SigmaZero

from rbl_benchmarks.usual import everywhere
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

L0 = Suite(
    "l0",
    everywhere(
        lambda eps: (
            Trial("sigma-zero", SigmaZero(steps=200), Lp(Norm.L0, eps[Norm.L0])),
            Trial("fmn", FMN(steps=200), Lp(Norm.L0, eps[Norm.L0])),
        )
    ),
    summary="L0 at the data set's usual eps: how few components must change.",
)
