"""The sum of all changes: APGD of many steps, and the smallest perturbations."""

from rbl_attacks.apgd import APGD
from rbl_attacks.pdpgd import PDPGD

from rbl_benchmarks.usual import everywhere
from robustbench_lite.attack import Cascade
from robustbench_lite.loss import Loss
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

L1 = Suite(
    "l1",
    everywhere(
        lambda eps: (
            Trial(
                "apgd",
                Cascade(APGD(steps=100), APGD(steps=100, loss=Loss.MARGIN)),
                Lp(Norm.L1, eps[Norm.L1]),
            ),
            Trial("pdpgd", PDPGD(steps=100), Lp(Norm.L1, eps[Norm.L1])),
        )
    ),
    summary="L1 at the data set's usual eps: APGD twice, and the whole curve below.",
)
