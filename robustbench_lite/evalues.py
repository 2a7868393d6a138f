"""Evidence that may be looked at after every sample: for a drop, and for its absence."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincc, betaln

from robustbench_lite.errors import InputError

_BETS = (np.arange(64) + 0.5) / 64


def drop_e_value(lost: int, gained: int) -> float:
    """Evidence for a drop that may be looked at after every sample.

    Under no drop, 1 / alpha is ever reached with a chance of at most alpha (Ville's inequality);
    the alternatives, shares of lost among discordant samples, are uniform between 1/2 and 1.
    """
    n = lost + gained
    log = (n + 1) * math.log(2) + float(betaln(lost + 1, gained + 1))
    tail = float(betaincc(lost + 1, gained + 1, 0.5))
    return math.exp(min(700.0, log + math.log(tail))) if tail > 0 else 0.0


def no_drop_e_value(lost: int, gained: int, n: int, margin: float) -> float:
    """Evidence, which may be looked at after every sample, for a drop of less than `margin`.

    The mean over bets lambda of prod(1 + lambda (margin - d)), d being 1 for a lost sample, -1 for
    a gained one and 0 for the others (Waudby-Smith and Ramdas 2024, arXiv:2010.09686, section 4).

    Raises:
        InputError: the margin is not between 0 and 1.
    """
    if not 0 < margin < 1:
        raise InputError(f"margin is {margin:g}; give a share between 0 and 1, such as 0.02")
    bets = _BETS / (1 - margin)
    even = n - lost - gained
    logs = (
        lost * np.log1p(bets * (margin - 1))
        + gained * np.log1p(bets * (margin + 1))
        + even * np.log1p(bets * margin)
    )
    return float(np.exp(np.minimum(700.0, logs)).mean())
