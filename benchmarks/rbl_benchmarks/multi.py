"""Several threats at once: a sample is robust if none of them breaks it."""

from rbl_attacks.apgd import APGD
from rbl_attacks.spatial import SpatialAttack
from rbl_attacks.verdict import Verdict

from rbl_benchmarks.usual import everywhere
from robustbench_lite.structured import Spatial
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

MULTI = Suite(
    "multi",
    everywhere(
        lambda eps: (
            Trial("linf", Verdict(), Lp(Norm.LINF, eps[Norm.LINF])),
            Trial("l2", Verdict(), Lp(Norm.L2, eps[Norm.L2])),
            Trial("l1", APGD(steps=100), Lp(Norm.L1, eps[Norm.L1])),
            Trial("spatial", SpatialAttack(), Spatial()),
        )
    ),
    summary="The union over Linf, L2, L1, and turns with shifts.",
)
