"""AutoAttack (Croce and Hein 2020, arXiv:2003.01690, section 6), as plans.

Each stage attacks what the stages before it left. In Linf and L2; the L1 version has a Square
stage of its own, which we do not have, so L1 is not offered.
"""

from rbl_attacks.apgd import APGD
from rbl_attacks.apgd_t import APGDT
from rbl_attacks.fab import FABT
from rbl_attacks.fab_u import FABU
from rbl_attacks.square import Square
from robustbench_lite.attack import Cascade, Restarts
from robustbench_lite.loss import Loss

# Half of the queries that the schedule was made for.
_SQUARE = Square(steps=5000, horizon=10000)

STANDARD = Cascade(
    APGD(steps=100),
    APGDT(steps=900, targets=9),
    FABT(steps=900, targets=9),
    _SQUARE,
)

PLUS = Cascade(
    Restarts(APGD(steps=100), 5),
    Restarts(APGD(steps=100, loss=Loss.DLR), 5),
    Restarts(FABU(steps=100, random_start=True), 5),
    _SQUARE,
    APGDT(steps=900, targets=9),
    FABT(steps=900, targets=9),
)

RAND = Cascade(APGD(steps=100), APGD(steps=100, loss=Loss.DLR))
