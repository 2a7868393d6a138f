"""The defenses that come with robustbench-lite, one a file."""

from rbl_defenses.awp import AWP
from rbl_defenses.bit_depth import BitDepth
from rbl_defenses.contrastive import Contrastive
from rbl_defenses.defensive_distillation import DefensiveDistillation
from rbl_defenses.ensemble import Ensemble
from rbl_defenses.fast_at import FastAT
from rbl_defenses.free_at import FreeAT
from rbl_defenses.gaussian_augment import GaussianAugment
from rbl_defenses.gaussian_noise import GaussianNoise
from rbl_defenses.ibp import IBP
from rbl_defenses.jpeg import Jpeg
from rbl_defenses.k_wta import KWTA
from rbl_defenses.mart import MART
from rbl_defenses.median_blur import MedianBlur
from rbl_defenses.pgd_at import PGDAT
from rbl_defenses.random_resize_pad import RandomResizePad
from rbl_defenses.randomized_smoothing import RandomizedSmoothing
from rbl_defenses.standard import Standard
from rbl_defenses.thermometer import Thermometer
from rbl_defenses.trades import TRADES

__all__ = [
    "AWP",
    "IBP",
    "KWTA",
    "MART",
    "PGDAT",
    "TRADES",
    "BitDepth",
    "Contrastive",
    "DefensiveDistillation",
    "Ensemble",
    "FastAT",
    "FreeAT",
    "GaussianAugment",
    "GaussianNoise",
    "Jpeg",
    "MedianBlur",
    "RandomResizePad",
    "RandomizedSmoothing",
    "Standard",
    "Thermometer",
]
