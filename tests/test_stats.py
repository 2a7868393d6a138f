import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lite.stats import wilson

COUNTS = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n"), [(7, 10), (137, 1000), (1, 1), (0, 1)])
def test_the_formula_by_hand(successes, n):
    z, p = 1.959963984540054, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(successes, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 50, 1000])
def test_none_and_all_are_mirror_images_that_end_at_the_bounds(n):
    z2 = 1.959963984540054**2
    assert wilson(0, n) == pytest.approx((0.0, z2 / (n + z2)), abs=1e-12)
    assert wilson(n, n) == pytest.approx((n / (n + z2), 1.0), abs=1e-12)


@given(COUNTS)
def test_the_interval_lies_in_the_unit_interval_and_around_the_share(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= successes / n <= high + 1e-12


@given(COUNTS)
def test_more_confidence_is_a_wider_interval(counts):
    low, high = wilson(*counts)
    lower, higher = wilson(*counts, confidence=0.99)
    assert lower <= low
    assert high <= higher
