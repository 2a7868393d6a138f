"""The defenses that come with robustbench-lite, one a file."""

from rbl_defenses.bit_depth import BitDepth
from rbl_defenses.ensemble import Ensemble
from rbl_defenses.gaussian_noise import GaussianNoise
from rbl_defenses.jpeg import Jpeg
from rbl_defenses.median_blur import MedianBlur
from rbl_defenses.pgd_at import PGDAT
from rbl_defenses.random_resize_pad import RandomResizePad
from rbl_defenses.standard import Standard

__all__ = [
    "PGDAT",
    "BitDepth",
    "Ensemble",
    "GaussianNoise",
    "Jpeg",
    "MedianBlur",
    "RandomResizePad",
    "Standard",
]
