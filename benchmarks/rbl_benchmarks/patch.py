"""Any colours inside one small rectangle."""

from rbl_attacks.patch import PatchAttack

from robustbench_lite.structured import Patch
from robustbench_lite.suite import Suite, Trial

PATCH = Suite(
    "patch",
    {"": (Trial("patch", PatchAttack(), Patch(0.05)),)},
    summary="A patch of 5 % of the image, anywhere.",
)
