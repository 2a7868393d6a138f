"""The defenses that come with robustbench-lite, one a file."""

from rbl_defenses.pgd_at import PGDAT
from rbl_defenses.standard import Standard

__all__ = ["PGDAT", "Standard"]
