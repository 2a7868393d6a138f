"""Intervals of a share, tests of two models on the same samples, ranks of many: from scipy.

Two models are compared sample by sample. `lost` are the samples that only the first gets right,
`gained` those that only the second does; samples on which both agree say nothing of a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm

from robustbench_lite.errors import InputError


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson interval of a proportion (Wilson 1927), without continuity correction.

    Args:
        successes: how many of the n samples.
        n: number of samples, 1 or more.
        confidence: coverage of the interval.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934, Biometrika 26, 404-413).

    It covers with at least `confidence` whatever the proportion, so it is wider than `wilson`.

    Args:
        successes: how many of the n samples.
        n: number of samples, 1 or more.
        confidence: least coverage of the interval; each end errs with at most half the rest.

    Returns:
        Both ends, as shares in [0, 1].

    Raises:
        ValueError: `successes` is not in 0 to n, n is below 1 or `confidence` is not a share.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p of no difference between two models (McNemar 1947, Psychometrika 12).

    Conditional on lost + gained, `lost` is binomial with 1/2 (Fagerland, Lydersen and Laake 2013,
    doi:10.1186/1471-2288-13-91).

    Args:
        lost: samples that only the first model gets right.
        gained: samples that only the second model gets right.

    Returns:
        The p-value; 1 where the models never disagree.

    Raises:
        ValueError: a count is negative.
    """
    if lost == gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained).pvalue)


def mcnemar_drop(lost: int, gained: int) -> float:
    """The exact one-sided p of a drop: P[Bin(lost + gained, 1/2) >= lost] (as `mcnemar`).

    Args:
        lost: samples that only the first model, or the one before, gets right.
        gained: samples that only the second model, or the one after, gets right.

    Returns:
        The p-value, small where the second model is worse; 1 where the models never disagree.

    Raises:
        ValueError: a count is negative.
    """
    if lost == gained == 0:
        return 1.0
    return float(binomtest(lost, lost + gained, alternative="greater").pvalue)


def tango(lost: int, gained: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a paired difference (Tango 1998, Statistics in Medicine 17, 891-908).

    Its upper end at confidence 0.90 is the one-sided 95 % bound of a drop.

    Args:
        lost: samples that only the first model gets right.
        gained: samples that only the second model gets right.
        n: number of samples, 1 or more, those included on which both agree.
        confidence: coverage of the interval, approximate in small samples; above 0 and below 1.

    Returns:
        Both ends for (lost - gained) / n, as shares in [-1, 1]; positive means a drop.

    Raises:
        InputError: the counts are negative or more than n, n is below 1 or `confidence` is not
            between 0 and 1.
    """
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise InputError(f"lost {lost} and gained {gained} of {n} samples; count each sample once")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie between 0 and 1")
    z = float(norm.ppf((1 + confidence) / 2))
    return _tango_low(lost, gained, n, z), -_tango_low(gained, lost, n, z)


def _tango_low(lost: int, gained: int, n: int, z: float) -> float:
    """Where the score falls to z: the root of T(D) = z at or below the point estimate.

    T / sqrt(1 + T^2) is solved instead, which is 1 at D = -1, where the variance is 0, and 0 at the
    estimate even where T is 0 / 0 there (no or only discordant samples).
    """
    if gained == n:
        return -1.0

    def gap(difference: float) -> float:
        score = lost - gained - n * difference
        if score == 0:
            return -z / math.hypot(1, z)
        a = 2 * n
        b = (2 * n - lost + gained) * difference - lost - gained
        c = -gained * difference * (1 - difference)
        q = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)  # likeliest gained / n, given D
        variance = n * max(2 * q + difference * (1 - difference), 0)
        return score / math.hypot(score, math.sqrt(variance)) - z / math.hypot(1, z)

    return float(brentq(gap, -1.0, (lost - gained) / n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Rejecting where an adjusted p is at most alpha makes one false rejection or more with a
    probability of at most alpha, however the tests depend on each other.

    Args:
        p_values: one p-value a test.

    Returns:
        The adjusted p-values, in the same order.

    Raises:
        InputError: a p-value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("a p-value is outside [0, 1] or NaN; pass what the tests returned")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    steps = np.arange(len(p), 0, -1)  # as many hypotheses are left at each step
    adjusted[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1)
    return [float(value) for value in adjusted]


def pairwise(robust: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How well each two of several models can be told apart on the same samples.

    Args:
        robust: (M, N) bool, whether each of M models withstood on each of N samples.

    Returns:
        (M, M) exact two-sided p-values of `mcnemar`, adjusted by `holm` over all M (M - 1) / 2
        pairs; symmetric, 1 on the diagonal.

    Raises:
        InputError: `robust` is not a matrix of bool.
    """
    if robust.ndim != 2 or robust.dtype != np.bool_:
        raise InputError(f"robust is {robust.dtype} {robust.shape}; it must be bool (M, N)")
    ones = robust.astype(np.float64)  # BLAS has no integers; counts are exact up to 2^53
    lost = (ones.sum(axis=1)[:, None] - ones @ ones.T).astype(np.int64)
    pairs = np.triu_indices(len(robust), k=1)
    first, second = lost[pairs], lost.T[pairs]
    p = np.minimum(2 * binom.cdf(np.minimum(first, second), first + second, 0.5), 1)
    result = np.ones(lost.shape)
    result[pairs] = result.T[pairs] = holm(p.tolist())
    return result


def ranks(order: Sequence[int], p_values: NDArray[np.float64], alpha: float = 0.05) -> list[int]:
    """Ranks that entries share unless they can be told apart.

    An entry's rank is 1 + the number of entries that are significantly better: those earlier in
    the order with a p of at most `alpha`. "Not separable" is not transitive: of three entries
    the second may be significantly worse than the first while the third, which disagrees with the
    first on more samples, is not. The third's rank is then raised, as little as needed, so that
    along the order no rank falls (the running maximum) and no entry shares the rank of one that is
    significantly better. So

    - a lower rank never goes to a later entry;
    - two entries with the same rank are never separable, but neighbours in rank need not be;
    - no rank exceeds the place in the order.

    Args:
        order: rows of `p_values`, each at most once, the best entry first.
        p_values: (M, M) symmetric adjusted p-values, as `pairwise` gives them.
        alpha: the level at which two entries count as separable.

    Returns:
        The rank of each entry, from 1, in the order of `order`.

    Raises:
        InputError: `p_values` is not square, or `order` repeats a row or names none of its rows.
    """
    if p_values.ndim != 2 or len(set(p_values.shape)) != 1:
        raise InputError(f"p_values is {p_values.shape}; it must be square")
    if len(set(order)) < len(order) or not set(order) <= set(range(len(p_values))):
        raise InputError(f"order must name rows of {len(p_values)}, each at most once")
    result: list[int] = []
    for entry in order:
        better = [
            rank
            for earlier, rank in zip(order[: len(result)], result, strict=True)
            if p_values[earlier, entry] <= alpha
        ]
        result.append(max([1 + len(better), *result[-1:], *(rank + 1 for rank in better)]))
    return result


def samples_needed(psi: float, drop: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Pairs needed to see a drop of paired accuracies by a one-sided McNemar test (Connor 1987).

    Args:
        psi: share of samples on which the two differ, at least the drop.
        drop: the true difference, above 0.
        alpha: chance of a false alarm.
        power: chance to see the drop.

    Raises:
        InputError: a share is out of range, or psi is less than the drop.
    """
    if not 0 < drop <= psi <= 1:
        raise InputError(
            f"a drop of {drop:g} with discordance {psi:g} cannot be; give 0 < drop <= discordance"
        )
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value:g}; give a number between 0 and 1")
    false_alarm, seen = float(norm.ppf(1 - alpha)), float(norm.ppf(power))
    root = false_alarm * math.sqrt(psi) + seen * math.sqrt(psi - drop**2)
    return math.ceil((root / drop) ** 2)


def samples_to_pass(psi: float, margin: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Pairs needed to exclude a drop of `margin` where there is none, by Tango's bound.

    Args:
        psi: share of samples that flip, as many either way.
        margin: the drop to be excluded.
        alpha: chance to exclude a drop of that size.
        power: chance to exclude it where there is none.
    """
    z = float(norm.ppf(1 - alpha))
    without_a_flip = z**2 * (1 - margin) / margin
    return math.ceil(max(without_a_flip, psi * ((z + float(norm.ppf(power))) / margin) ** 2)) + 1
