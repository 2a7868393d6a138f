"""AutoAttack's answer, or a lower one, at a small part of its time.

Cheap stages first, each on the survivors of the former. How near a sample came decides how long it
is looked at: what later stages broke had been left with small gaps by the first ones. Towards which
class an example lies is what short ascents miss most often, so that classes are tried by successive
halving, in the order of arXiv:2407.02240, section 4. The few that are left at the edge are climbed
to again and again: one run in two or three breaks what others leave. The wider the ball, the more
starts and targets count, and in the widest random squares.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from rbl_attacks.apgd import APGD, Start
from rbl_attacks.apgd_t import APGDT, Order
from rbl_attacks.autoattack import STANDARD
from rbl_attacks.fab import FABT
from rbl_attacks.fgsm import FGSM
from rbl_attacks.pdpgd import PDPGD
from rbl_attacks.square import Square
from robustbench_lite.attack import Cascade, IfHidden, Near, Plan, Restarts, Stage
from robustbench_lite.loss import Loss
from robustbench_lite.settings import check_fields
from robustbench_lite.threat import Access, Lp, Norm, Threat


class Effort(StrEnum):
    """How long to look: in CI, for a leaderboard, for a paper."""

    QUICK = "quick"
    STANDARD = "standard"
    THOROUGH = "thorough"


_SHORT = APGD(steps=12, loss=Loss.MARGIN)
_OTHER = APGD(steps=20, start_at=Start.STRIPES)
_THIRD = APGD(steps=15, start_at=Start.CORNER)
_TARGETED = APGDT(steps=50, targets=2, order=Order.MALT)
_EVERY_TARGET = APGDT(steps=270, targets=9, order=Order.MALT)
_FIRST_TARGET = APGDT(steps=16, targets=1, order=Order.MALT, candidates=5)
_BEST_TARGETS = APGDT(steps=72, targets=9, order=Order.MALT, rounds=2)
_BEST_TARGET = APGDT(steps=180, targets=9, order=Order.MALT, rounds=3)
_NEAR_TARGETS = replace(_BEST_TARGET, steps=270)
_EDGE = APGD(steps=100, loss=Loss.MARGIN, start_at=Start.STRIPES)
_OTHER_EDGE = replace(_EDGE, loss=Loss.CROSS_ENTROPY)
_CORNER = APGD(steps=50, loss=Loss.MARGIN, start_at=Start.CORNER)
_SEARCH = Near(Square(steps=250, horizon=4000, at_once=8), within=0.025, swings=0.5, apart=0.04)
_LONG_SEARCH = Square(steps=1250, horizon=10000, at_once=8)  # twice AutoAttack's
_MIDDLE = 0.04  # eps from which one start and one target are too few, on nets of MNIST
_WIDE = 0.1  # eps from which squares find what ascents miss: 6 of 400 on a robust MNIST LeNet
_WIDE_SEARCH = Near(
    Square(steps=750, horizon=10000, at_once=16, patience=150), within=0.05, swings=1, apart=0.03
)
_GLANCE = IfHidden(Square(steps=63, horizon=500, at_once=8, patience=60))
_CLIMBS = Cascade(
    FGSM(),
    _SHORT,
    _OTHER,
    Near(_THIRD, within=0.35),
    Near(_TARGETED, within=0.06),
    Near(APGD(steps=100), within=0.05, swings=2),
)
_FEW_CLIMBS = Cascade(FGSM(), replace(_SHORT, steps=8), Near(_FIRST_TARGET, within=0.25))

_NARROW_LINF = Cascade(
    _FEW_CLIMBS,
    Near(_OTHER, within=0.06),
    Near(_BEST_TARGETS, within=0.045),
    Near(_EDGE, within=0.008),
    Near(_BEST_TARGET, within=0.005),
    Near(Restarts(replace(_EDGE, steps=50), 12), within=0.0012),
    IfHidden(_LONG_SEARCH),
)
_MIDDLE_LINF = Cascade(
    FGSM(),
    _SHORT,
    _OTHER,
    Near(APGD(steps=10, start_at=Start.CORNER), within=0.25),
    Near(replace(_BEST_TARGETS, steps=45), within=0.3),
    Near(_BEST_TARGET, within=0.12),
    Near(replace(_BEST_TARGET, steps=540), within=0.02),
    Near(Restarts(_EDGE, 6), within=0.006),
    Near(Restarts(_OTHER_EDGE, 6), within=0.006),
    IfHidden(_LONG_SEARCH),
)
_WIDE_LINF = Cascade(
    _CLIMBS,
    Near(_NEAR_TARGETS, within=0.04),
    Near(_CORNER, within=0.03, swings=1.5),
    Near(Restarts(_EDGE, 6), within=0.012),
    Near(Restarts(_OTHER_EDGE, 6), within=0.012),
    _WIDE_SEARCH,
    IfHidden(_LONG_SEARCH),
)
_QUICK = {
    Norm.LINF: Cascade(_CLIMBS, Near(_NEAR_TARGETS, within=0.01), _GLANCE),
    Norm.L2: Cascade(FGSM(), _SHORT, Near(_TARGETED, within=0.1), Near(PDPGD(steps=40)), _GLANCE),
}
_STANDARD_L2 = Cascade(
    FGSM(),
    _SHORT,
    _OTHER,
    Near(_TARGETED, within=0.06),
    Near(PDPGD(steps=100), swings=200),  # it finds what ascents within the ball do not
    Near(_EVERY_TARGET, within=0.01),
    Near(FABT(steps=300, targets=3), reach=1.2),
    _SEARCH,
    IfHidden(_LONG_SEARCH),
)
_AGAIN = Cascade(STANDARD, Restarts(_CORNER, 3), Restarts(_OTHER, 3), Square(steps=10000))
_NARROW_QUICK = Cascade(_FEW_CLIMBS, Near(_BEST_TARGETS, within=0.01), _GLANCE)
_MIDDLE_QUICK = Cascade(
    replace(_OTHER, steps=12),
    Near(replace(_OTHER, steps=32), within=0.12),
    Near(_OTHER_EDGE, within=0.06, swings=2),
    Near(replace(_BEST_TARGETS, steps=45), within=0.04),
    Near(Restarts(_EDGE, 2), within=0.015, swings=2),
    _GLANCE,
)
_BLIND = {
    Effort.QUICK: Square(steps=500),
    Effort.STANDARD: Square(steps=5000),
    Effort.THOROUGH: Restarts(Square(steps=10000), 2),
}


def _plan(effort: Effort, norm: Norm, eps: float) -> Cascade:
    """What is worth looking for in balls of this kind."""
    if effort is Effort.QUICK:
        if norm is Norm.LINF and eps < _WIDE:
            return _NARROW_QUICK if eps < _MIDDLE else _MIDDLE_QUICK
        return _QUICK[norm]
    if norm is Norm.L2:
        plan = _STANDARD_L2
    elif eps < _MIDDLE:
        plan = _NARROW_LINF
    else:
        plan = _MIDDLE_LINF if eps < _WIDE else _WIDE_LINF
    return Cascade(plan, _AGAIN) if effort is Effort.THOROUGH else plan


@dataclass(frozen=True)
class Verdict(Plan):
    """How robust is it, really? The whole plan in one name, for Linf and L2.

    Without gradients it is a random search with squares. In Linf there are more starts and targets
    from an eps of 0.04 on, and squares from 0.1 on (`rbl show` prints the stages at 0.5).

    Args:
        effort: `quick`, seconds for a small net, for CI; `standard`, AutoAttack's answer or a
            lower one; `thorough`, AutoAttack in full, restarts and more queries on top.
    """

    effort: Effort = Effort.STANDARD

    def __post_init__(self) -> None:
        check_fields(self)

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """The stages that suit norm and access."""
        if not isinstance(threat, Lp) or threat.access is not Access.GRADIENTS:
            return _BLIND[self.effort].stages(threat)
        return _plan(self.effort, threat.norm, threat.eps).stages(threat)

    def supports(self, threat: Threat) -> bool:
        """L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm in _QUICK and threat.eps < math.inf

    @property
    def least_access(self) -> Access:
        """Scores."""
        return Access.SCORES

    def __str__(self) -> str:
        return f"Verdict(effort={self.effort})"
