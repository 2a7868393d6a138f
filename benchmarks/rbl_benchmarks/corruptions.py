"""The 15 common corruptions at every severity (Hendrycks and Dietterich 2019)."""

from rbl_attacks.corruptions import Corruptions

from robustbench_lite.corruption import KINDS, Corruption
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Access

CORRUPTIONS = Suite(
    "corruptions",
    {
        "": tuple(
            Trial(kind, Corruptions(kinds=kind, stop=False), Corruption(access=Access.DECISIONS))
            for kind in KINDS
        )
    },
    summary="Noise, blur, weather and encoding, each at five severities; mCE is the mean error.",
)
