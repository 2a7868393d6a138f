"""Who sees scores or labels only, and may ask a thousand times."""

from rbl_attacks.rays import RayS
from rbl_attacks.square import Square

from rbl_benchmarks.usual import everywhere
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Access, Lp, Norm

_QUERIES = 1000

BLACKBOX = Suite(
    "blackbox",
    everywhere(
        lambda eps: (
            Trial(
                "square",
                Square(steps=_QUERIES),
                Lp(Norm.LINF, eps[Norm.LINF], Access.SCORES, _QUERIES),
            ),
            Trial(
                "rays",
                RayS(steps=_QUERIES),
                Lp(Norm.LINF, eps[Norm.LINF], Access.DECISIONS, _QUERIES),
            ),
        )
    ),
    summary="Linf by 1,000 queries a sample: scores (square) and labels only (rays).",
)
