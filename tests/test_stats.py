import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multinomial
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from robustbench_lite.errors import InputError
from robustbench_lite.stats import (
    clopper_pearson,
    holm,
    mcnemar,
    mcnemar_drop,
    pairwise,
    ranks,
    tango,
    wilson,
)

Z = 1.959963984540054
COUNTS = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))

# Samples that one model loses, that it gains, and on which both agree: 1 or more in all.
PAIRED = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 5_000)).filter(any)
P_VALUES = st.lists(st.floats(0, 1), max_size=30)


@st.composite
def matrices(draw):
    """Symmetric p-values: many far from those of real models, where nothing is transitive."""
    m = draw(st.integers(1, 9))
    p = np.ones((m, m))
    for i, j in itertools.combinations(range(m), 2):
        p[i, j] = p[j, i] = draw(st.sampled_from([0.001, 0.05, 0.06, 1.0]))
    return p


@st.composite
def outcomes(draw):
    """Whether each of 2 to 7 models withstood on each of 0 to 300 samples."""
    m, n = draw(st.integers(2, 7)), draw(st.integers(0, 300))
    rates = draw(st.lists(st.floats(0, 1), min_size=m, max_size=m))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random((m, n)) < np.array(rates)[:, None]


def best_first(robust):
    return np.argsort(-robust.sum(axis=1), kind="stable").tolist()


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


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.999]))
def test_the_exact_interval_of_a_share_is_the_reference(counts, confidence):
    expected = proportion_confint(*counts, alpha=1 - confidence, method="beta")
    assert clopper_pearson(*counts, confidence) == pytest.approx(expected, abs=1e-9)


def test_the_exact_interval_of_a_share_in_print():
    # The R package contingencytables (Fagerland, Lydersen and Laake 2017), chapter 2.
    assert clopper_pearson(13, 16) == pytest.approx((0.5435, 0.9595), abs=5e-5)
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.3085), abs=5e-5)


@given(COUNTS)
def test_the_exact_interval_lies_in_the_unit_interval_and_around_the_share(counts):
    low, high = clopper_pearson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_of_a_share_are_refused(interval, successes, n):
    with pytest.raises(ValueError, match="must"):
        interval(successes, n)


@given(PAIRED)
def test_mcnemar_is_the_reference(counts):
    lost, gained, agreed = counts
    expected = reference_mcnemar([[agreed, lost], [gained, 0]], exact=True).pvalue
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_drop_is_tested_by_the_tail_of_a_fair_coin(lost, gained):
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n
    assert mcnemar_drop(lost, gained) == pytest.approx(tail, rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == mcnemar_drop(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar_drop(6, 0) == pytest.approx(1 / 64)
    assert mcnemar_drop(0, 6) == 1.0
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)  # Cavo et al., as below


@pytest.mark.parametrize("test", [mcnemar, mcnemar_drop])
@pytest.mark.parametrize(("lost", "gained"), [(-1, 0), (-1, 1), (3, -1), (-2, 5)])
def test_negative_counts_are_refused(test, lost, gained):
    with pytest.raises(ValueError, match="must"):
        test(lost, gained)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "low", "high", "digit"),
    [
        (12, 2, 44, 0.069, 0.386, 1e-3),
        (0, 0, 1000, -0.0038, 0.0038, 1e-4),
        # Cavo et al. 2012, in the R package contingencytables, chapter 8.
        (6, 16, 161, -0.1240, -0.0054, 1e-4),
    ],
)
def test_published_paired_intervals(lost, gained, n, low, high, digit):
    assert tango(lost, gained, n) == pytest.approx((low, high), abs=digit / 2)


@pytest.mark.parametrize("n", [1, 2, 3, 50, 1000, 10**6])
def test_the_edges_of_the_paired_interval_have_a_closed_form(n):
    end = Z * Z / (n + Z * Z)
    assert tango(0, 0, n) == pytest.approx((-end, end), rel=1e-5)
    end = (n - Z * Z) / (n + Z * Z)
    assert tango(n, 0, n) == pytest.approx((end, 1.0), abs=1e-9)
    assert tango(0, n, n) == pytest.approx((-1.0, -end), abs=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained", "n"),
    [(3, 9, 40), (9, 3, 40), (5, 5, 10), (1, 0, 7), (1, 4, 5), (40, 2, 900)],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_at_its_ends_the_score_is_the_normal_quantile(lost, gained, n, confidence):
    """From the likelihood alone: the variance at the likeliest table with that difference."""
    agreed = n - lost - gained
    z = {0.9: 1.6448536269514722, 0.95: Z}[confidence]
    for end, expected in zip(tango(lost, gained, n, confidence), (z, -z), strict=True):
        floor = max(0.0, -end)

        def loss(q, end=end):
            cells = ((lost, q + end), (gained, q), (agreed, 1 - 2 * q - end))
            return -sum(count * math.log(p) for count, p in cells if count)

        bounds = (floor, (1 - end) / 2)
        q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-11}).x
        score = (lost - gained - n * end) / math.sqrt(n * (2 * q + end - end * end))
        assert score == pytest.approx(expected, abs=1e-4)


@given(PAIRED, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_paired_interval_lies_around_the_difference_and_mirrors(counts, confidence):
    lost, gained, n = counts[0], counts[1], sum(counts)
    low, high = tango(lost, gained, n, confidence)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert tango(gained, lost, n, confidence) == (-high, -low)


@given(PAIRED, st.integers(2, 9))
def test_the_paired_interval_narrows_with_samples_and_less_confidence(counts, times):
    lost, gained, n = counts[0], counts[1], sum(counts)
    low, high = tango(lost, gained, n)
    for inner in (tango(times * lost, times * gained, times * n), tango(lost, gained, n, 0.9)):
        assert inner[1] - inner[0] < high - low
        assert low <= inner[0]
        assert inner[1] <= high


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.025, 0.015), (0.04, 0.0)])
def test_the_paired_interval_covers(lost, gained):
    shares = [lost, gained, 1 - lost - gained]
    draws = np.random.default_rng(0).multinomial(300, shares, size=2000).tolist()
    interval = functools.cache(tango)
    covers = [
        low <= lost - gained <= high for low, high in (interval(a, b, 300) for a, b, _ in draws)
    ]
    assert 0.93 < sum(covers) / 2000 < 0.97


@pytest.mark.parametrize(
    ("lost", "gained", "passes", "fails"), [(0.02, 0.02, 0.942, 0.033), (0.03, 0.01, 0.050, 0.942)]
)
def test_a_gate_of_two_points_decides_as_simulated(lost, gained, passes, fails):
    """The verdicts of FIELD.md section 5, summed over all that can happen to 1,102 samples."""
    n, margin = 1102, 0.02
    counts = np.array(list(itertools.product(range(70), range(55))))
    chance = multinomial.pmf(
        np.column_stack([counts, n - counts.sum(axis=1)]), n, [lost, gained, 1 - lost - gained]
    )
    likely = chance > 1e-6
    shares = {"pass": 0.0, "fail": 0.0}
    for (a, b), p in zip(counts[likely].tolist(), chance[likely], strict=True):
        if tango(a, b, n, 0.9)[1] < margin:
            shares["pass"] += p
        elif mcnemar_drop(a, b) <= 0.05:
            shares["fail"] += p
    assert shares == pytest.approx({"pass": passes, "fail": fails}, abs=0.005)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "confidence"),
    [
        (0, 0, 0, 0.95),
        (-1, 0, 5, 0.95),
        (0, -1, 5, 0.95),
        (3, 3, 5, 0.95),
        (1, 1, 5, 0.0),
        (1, 1, 5, 1.0),
        (1, 1, 5, math.nan),
    ],
)
def test_impossible_paired_counts_are_refused(lost, gained, n, confidence):
    with pytest.raises(InputError):
        tango(lost, gained, n, confidence)


@settings(max_examples=25)  # the reference collects garbage at each call: 60 ms
@given(P_VALUES.filter(len))
def test_holm_is_the_reference(p_values):
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)
    assert all(before <= after for before, after in zip(p_values, adjusted, strict=True))


@given(st.permutations([0.01, 0.02, 0.03, 0.005, 0.02]))
def test_holm_by_hand_in_any_order(p_values):
    by_hand = {0.005: 0.025, 0.01: 0.04, 0.02: 0.06, 0.03: 0.06}
    assert holm(p_values) == pytest.approx([by_hand[p] for p in p_values])


def test_holm_of_few():
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(InputError):
        holm([0.5, p])


@given(outcomes())
def test_pairwise_is_holm_over_mcnemar_of_every_pair(robust):
    pairs = list(itertools.combinations(range(len(robust)), 2))
    p = [
        mcnemar(int((robust[i] & ~robust[j]).sum()), int((robust[j] & ~robust[i]).sum()))
        for i, j in pairs
    ]
    expected = np.ones((len(robust), len(robust)))
    for (i, j), value in zip(pairs, holm(p), strict=True):
        expected[i, j] = expected[j, i] = value
    np.testing.assert_allclose(pairwise(robust), expected, rtol=1e-9)


@given(outcomes(), st.randoms(use_true_random=False))
def test_permuting_the_models_permutes_the_matrix(robust, random):
    order = list(range(len(robust)))
    random.shuffle(order)
    np.testing.assert_array_equal(pairwise(robust[order]), pairwise(robust)[np.ix_(order, order)])


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 0)])
def test_nothing_to_compare_is_never_significant(shape):
    np.testing.assert_array_equal(pairwise(np.ones(shape, bool)), np.ones((shape[0], shape[0])))


@pytest.mark.parametrize("robust", [np.ones(4, bool), np.ones((2, 4))], ids=["one model", "floats"])
def test_what_is_no_matrix_of_outcomes_is_refused(robust):
    with pytest.raises(InputError):
        pairwise(robust)


def matrix(m, *separable):
    p = np.ones((m, m))
    for i, j in separable:
        p[i, j] = p[j, i] = 0.05
    return p


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        (matrix(3), [1, 1, 1]),
        (matrix(3, (0, 1), (0, 2), (1, 2)), [1, 2, 3]),
        (matrix(4, (0, 2), (0, 3), (1, 2), (1, 3)), [1, 1, 3, 3]),
        (matrix(3, (0, 2)), [1, 1, 2]),
        # Nobody beats the third significantly, yet it cannot rank before the second.
        (matrix(3, (0, 1)), [1, 2, 2]),
        # Raising the third to the second's rank must not make it share that of the fourth.
        (matrix(4, (0, 1), (2, 3)), [1, 2, 2, 3]),
        (matrix(0), []),
    ],
)
def test_ranks_by_hand(p_values, expected):
    assert ranks(range(len(p_values)), p_values) == expected


def test_ranks_follow_the_order_not_the_rows():
    assert ranks([2, 0, 1], matrix(3, (2, 1), (0, 1))) == [1, 1, 3]
    assert ranks([2, 1], matrix(3, (2, 1), (0, 1))) == [1, 2]
    assert ranks([0, 1], matrix(2, (0, 1)), alpha=0.04) == [1, 1]


@given(matrices(), st.data())
def test_ranks_never_contradict_a_separable_pair(p_values, data):
    order = data.draw(st.permutations(range(len(p_values))))
    given_ranks = ranks(order, p_values)
    for place, entry in enumerate(order):
        better = [i for i in range(place) if p_values[order[i], entry] <= 0.05]
        assert all(given_ranks[i] < given_ranks[place] for i in better)
        assert 1 + len(better) <= given_ranks[place] <= place + 1
    assert given_ranks == sorted(given_ranks)


@given(matrices())
def test_no_rank_is_higher_than_it_must_be(p_values):
    result = ranks(range(len(p_values)), p_values)
    for place, rank in enumerate(result):
        better = [i for i in range(place) if p_values[i, place] <= 0.05]
        reasons = {1 + len(better), *result[max(place - 1, 0) : place]}
        assert rank in reasons | {1 + result[i] for i in better}


@given(outcomes())
def test_models_that_share_a_rank_cannot_be_told_apart(robust):
    p_values, order = pairwise(robust), best_first(robust)
    for _, tied in itertools.groupby(
        zip(ranks(order, p_values), order, strict=True), lambda e: e[0]
    ):
        for (_, i), (_, j) in itertools.combinations(tied, 2):
            assert p_values[i, j] > 0.05


@pytest.mark.parametrize(
    ("order", "p_values"),
    [
        ([0, 0], np.ones((2, 2))),
        ([0, 2], np.ones((2, 2))),
        ([-1], np.ones((2, 2))),
        ([0], np.ones((2, 3))),
        ([0], np.ones(2)),
    ],
)
def test_an_order_that_fits_no_matrix_is_refused(order, p_values):
    with pytest.raises(InputError):
        ranks(order, p_values)
