"""Intervals and tests, all from scipy."""

from scipy.stats import binomtest


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson interval of a proportion (Wilson 1927), without continuity correction.

    Args:
        successes: how many of the n samples.
        n: number of samples, 1 or more.
        confidence: coverage of the interval.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
