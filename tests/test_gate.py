import bisect
import functools
import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, multinomial

from robustbench_lite.errors import InputError
from robustbench_lite.evalues import drop_e_value, no_drop_e_value
from robustbench_lite.gate import (
    Answer,
    Counts,
    Policy,
    Rule,
    decided,
    decided_so_far,
    overall,
)
from robustbench_lite.stats import holm, mcnemar_drop, samples_needed, samples_to_pass, tango

PASS, INCONCLUSIVE, FAIL = Answer.PASS, Answer.INCONCLUSIVE, Answer.FAIL
GATES = 2_000
NOISE = 3 * math.sqrt(0.05 * 0.95 / GATES)  # three standard errors of a share of 5 or 95 %

# Shares lost and gained, of discordance 4 % and 10 %: without change, and with a drop of 2 points.
SAME, DROPPED = (0.02, 0.02), (0.03, 0.01)
SAME_10, DROPPED_10 = (0.05, 0.05), (0.06, 0.04)

MODES = pytest.mark.parametrize("mode", [decided, decided_so_far])
MARGINS = (0.005, 0.02, 0.1, 0.5)
AMOUNT = st.one_of(st.integers(0, 60), st.integers(0, 10**6))
PAIRED = st.tuples(AMOUNT, AMOUNT, AMOUNT).filter(any)  # lost, gained, even
RULES = st.builds(
    Rule,
    margin=st.sampled_from([0.001, 0.02, 0.1, 0.5]),
    alpha=st.sampled_from([0.001, 0.05, 0.2, 0.45]),
    policy=st.sampled_from([Policy.STANDARD, Policy.STRICT]),
)


def of(lost, gained, n, name="clean"):
    return Counts(name, lost, gained, n, n - gained)


def one(lost, gained, n, rule=Rule(), mode=decided):  # noqa: B008 # frozen
    return mode([of(lost, gained, n)], rule)[0]


@functools.cache
def answer(mode, *counts):
    return overall(mode([of(*c) for c in counts], Rule()))


def draws(seed, shares, n, size):
    return np.random.default_rng(seed).multinomial(n, [*shares, 1 - sum(shares)], size=size)


def shares_of(answers):
    return {kind: answers.count(kind) / len(answers) for kind in Answer}


def simulated(seed, shares, n, together=1):
    """What 2,000 gates say, each of so many measurements on n samples."""
    every = draws(seed, shares, n, (GATES, together))[..., :2].tolist()
    return shares_of([answer(decided, *((lost, gained, n) for lost, gained in c)) for c in every])


@functools.cache
def sequential(seed, shares, most=5_000, batch=50):
    """What 2,000 gates say that look after every batch, and the samples that each has used."""
    said, used = [], []
    for looks in draws(seed, shares, batch, (GATES, most // batch)).cumsum(axis=1).tolist():
        for lost, gained, even in looks:
            n = lost + gained + even
            verdict = answer(decided_so_far, (lost, gained, n))
            if verdict is not INCONCLUSIVE:
                break
        said.append(verdict)
        used.append(n)
    return shares_of(said), float(np.median(used))


def ever(seed, shares, evidence, least=20.0):
    """The share of 2,000 gates that reach so much evidence at any of 100 looks."""
    looks = draws(seed, shares, 50, (GATES, 100)).cumsum(axis=1)
    states, place = np.unique(looks.reshape(-1, 3), axis=0, return_inverse=True)
    enough = np.array([evidence(*state) >= least for state in states.tolist()])
    return enough[place.reshape(looks.shape[:2])].any(axis=1).mean()


def trinomial(n):
    """All that can happen to n samples: lost, gained, even."""
    return np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])


# A fixed number of samples.


def exact(shares, n):
    """The chance of each answer: the answer gets worse with each lost sample, so bounds suffice."""
    lost_share, gained_share = shares
    chance = dict.fromkeys(Answer, 0.0)
    for gained in range(int(binom.isf(1e-6, n, gained_share)) + 1):
        of_gained = binom.pmf(gained, n, gained_share)
        likely = range(int(binom.isf(1e-6, n, lost_share)) + 2)

        def worse(lost, gained=gained):
            return list(Answer).index(answer(decided, (lost, gained, n)))

        bounds = [bisect.bisect_left(likely, k, key=worse) - 1 for k in (1, 2)]
        below = binom.cdf(bounds, n - gained, lost_share / (1 - gained_share))
        chance[PASS] += of_gained * below[0]
        chance[INCONCLUSIVE] += of_gained * (below[1] - below[0])
        chance[FAIL] += of_gained * (1 - below[1])
    return chance


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (SAME, {PASS: 0.942, FAIL: 0.033, INCONCLUSIVE: 0.025}),
        (DROPPED, {PASS: 0.050, FAIL: 0.942, INCONCLUSIVE: 0.008}),
    ],
)
def test_a_gate_decides_as_the_field_says(shares, expected):
    assert simulated(0, shares, 1102) == pytest.approx(expected, abs=NOISE)
    assert exact(shares, 1102) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(
    ("shares", "n"), [((0.01, 0.01), 536), (SAME, 1102), (SAME_10, 1102), (SAME_10, 2779)]
)
def test_a_model_that_has_not_changed_fails_in_5_percent_at_most(shares, n):
    chance = exact(shares, n)
    assert chance[FAIL] <= 0.05
    assert simulated(1, shares, n) == pytest.approx(chance, abs=2 * NOISE)
    assert simulated(1, shares, n)[FAIL] <= 0.05


@pytest.mark.parametrize(
    ("shares", "n"), [((0.02, 0.0), 536), (DROPPED, 1102), (DROPPED_10, 1102), (DROPPED_10, 2779)]
)
def test_a_drop_of_the_margin_passes_in_5_percent_at_most(shares, n):
    """The exact chances are .043 to .050, so a simulation may lie above 5 %."""
    chance = exact(shares, n)
    assert chance[PASS] <= 0.05
    assert simulated(2, shares, n) == pytest.approx(chance, abs=2 * NOISE)


@pytest.mark.parametrize(("shares", "n"), [(DROPPED, 1102), (DROPPED_10, 2779)])
def test_a_drop_of_two_points_is_seen(shares, n):
    assert simulated(3, shares, n)[FAIL] >= 0.92


def test_a_gate_with_too_few_samples_says_so():
    said = simulated(4, SAME_10, 1102)
    assert said == pytest.approx({PASS: 0.668, FAIL: 0.041, INCONCLUSIVE: 0.291}, abs=0.032)


def test_five_measurements_without_change_fail_in_5_percent_at_most_together():
    assert simulated(5, SAME, 1102, together=5)[FAIL] <= 0.05


def test_several_measurements_pass_together_only_if_each_passes():
    good, bad, open_ = of(5, 5, 1102), of(60, 5, 1102), of(1, 1, 20)
    for every, expected in (
        ([good, good], PASS),
        ([good, open_], INCONCLUSIVE),
        ([good, open_, bad], FAIL),
    ):
        for mode in (decided, decided_so_far):
            found = mode(every, Rule())
            assert [f.counts for f in found] == every
            assert overall(found) is expected


# A look after every batch.


def test_without_change_hardly_any_gate_fails_however_often_it_looks():
    said, median = sequential(6, SAME)
    assert said[FAIL] <= 0.05
    assert said[PASS] >= 0.96  # .978 of 4,000
    assert median <= 800  # 700; a fixed gate takes 1,102


def test_a_drop_of_the_margin_hardly_ever_passes_however_often_it_is_looked_at():
    said, median = sequential(7, DROPPED)
    assert said[PASS] <= 0.05
    assert said[FAIL] >= 0.96
    assert median <= 700


def test_a_drop_of_four_points_is_seen_in_250_samples():
    said, median = sequential(8, (0.04, 0.0))
    assert said[FAIL] >= 0.99
    assert median <= 250


def test_a_model_without_any_difference_passes_after_250_samples():
    assert sequential(9, (0.0, 0.0)) == ({PASS: 1.0, FAIL: 0.0, INCONCLUSIVE: 0.0}, 250.0)


@pytest.mark.parametrize("psi", [0.02, 0.04, 0.1, 0.4])
def test_a_hundred_looks_hardly_ever_find_evidence_of_what_is_not(psi):
    half = psi / 2
    assert ever(10, (half, half), lambda lost, gained, _: drop_e_value(lost, gained)) <= 0.05

    def no_drop(lost, gained, even):
        return no_drop_e_value(lost, gained, lost + gained + even, 0.02)

    assert ever(11, (half + 0.01, half - 0.01), no_drop) <= 0.05


def test_looking_at_a_fixed_test_would_raise_false_alarms():
    """What the e-values are for; FIELD.md says 20 to 24 %, with a look every 100 samples."""
    peeked = ever(12, SAME, lambda lost, gained, _: 1 / mcnemar_drop(lost, gained))
    assert peeked > 0.15


def test_with_several_measurements_each_needs_more_evidence_to_fail():
    assert 20 < drop_e_value(7, 0) < 5 * 20 < drop_e_value(10, 0)
    same = [of(0, 0, 100)] * 4
    assert decided_so_far([of(7, 0, 100)], Rule())[0].answer is FAIL
    assert decided_so_far([of(7, 0, 100), *same], Rule())[0].answer is INCONCLUSIVE
    assert decided_so_far([of(10, 0, 100), *same], Rule())[0].answer is FAIL


# Sizes and evidence.


@pytest.mark.parametrize(
    ("psi", "formula", "field"),
    [
        (0.02, 536, 536),
        (0.04, 1077, 1102),
        (0.06, 1618, 1682),
        (0.10, 2701, 2779),
        (0.20, 5406, 5514),
    ],
)
def test_sizes(psi, formula, field):
    """Connor's formula; at FIELD.md's sizes, which are larger, the exact test has 95 % power."""
    z = 1.6448536269514722
    by_hand = z**2 * (math.sqrt(psi) + math.sqrt(psi - 0.02**2)) ** 2 / 0.02**2
    assert samples_needed(psi, 0.02, 0.05, 0.95) == math.ceil(by_hand) == formula
    discordant = np.arange(binom.isf(1e-12, field, psi) + 1)
    least = binom.isf(0.05, discordant, 0.5)  # more losses than these are significant
    seen = binom.sf(least, discordant, (psi + 0.02) / (2 * psi))
    assert 0.95 <= binom.pmf(discordant, field, psi) @ seen < (0.951 if psi > 0.02 else 0.99)
    assert samples_needed(psi, 0.02, alpha=0.01) > formula < samples_needed(psi, 0.02, power=0.99)


@pytest.mark.parametrize(
    "arguments",
    [
        (0.01, 0.02),
        (0.04, 0.0),
        (1.01, 0.02),
        (math.nan, 0.02),
        (0.04, 0.02, 0.0),
        (0.04, 0.02, 1.0),
        (0.04, 0.02, 0.05, 0.0),
        (0.04, 0.02, 0.05, 1.0),
    ],
)
def test_sizes_of_what_cannot_be_are_refused(arguments):
    with pytest.raises(InputError):
        samples_needed(*arguments)


@pytest.mark.parametrize(("lost", "gained"), list(itertools.product(range(9), repeat=2)))
def test_evidence_of_a_drop_by_brute_force(lost, gained):
    """The mean over shares p of 2^n p^lost (1 - p)^gained, expanded and integrated as fractions."""
    half, total = Fraction(1, 2), Fraction(0)
    for k in range(gained + 1):
        power = lost + k + 1
        total += Fraction(math.comb(gained, k) * (-1) ** k, power) * (1 - half**power)
    expected = 2 ** (lost + gained + 1) * total
    assert drop_e_value(lost, gained) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("lost", "gained"), [(0, 0), (3, 1), (20, 22), (40, 15), (5, 60), (120, 118), (300, 210)]
)
def test_evidence_of_a_drop_is_the_integral(lost, gained):
    def ratio(p):
        return 2 * (2 * p) ** lost * (2 - 2 * p) ** gained

    expected = quad(ratio, 0.5, 1, epsabs=0, epsrel=1e-10, limit=500)[0]
    assert drop_e_value(lost, gained) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 30, 400])
def test_evidence_of_a_drop_is_one_on_average_without_a_drop(n):
    total = sum(math.comb(n, k) * drop_e_value(k, n - k) / 2**n for k in range(n + 1))
    assert total == pytest.approx(1, abs=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_next_discordant_sample_leaves_the_evidence_as_it_is_on_average(lost, gained):
    now = drop_e_value(lost, gained)
    assert (drop_e_value(lost + 1, gained) + drop_e_value(lost, gained + 1)) / 2 == pytest.approx(
        now, rel=1e-9
    )


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0, 0, 40), (0, 3, 10), (10, 12, 800), (30, 10, 900), (1, 0, 1)]
)
def test_evidence_of_no_drop_is_the_integral_over_bets(lost, gained, n, margin):
    most = 1 / (1 - margin)

    def wealth(bet):
        even = n - lost - gained
        grown = (1 + bet * (margin + 1)) ** gained * (1 + bet * margin) ** even
        return (1 + bet * (margin - 1)) ** lost * grown

    found = no_drop_e_value(lost, gained, n, margin)
    assert found == pytest.approx(quad(wealth, 0, most, epsabs=0)[0] / most, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("margin", MARGINS)
def test_evidence_of_no_drop_is_one_on_average_at_most_at_every_drop_of_the_margin(n, margin):
    outcomes = trinomial(n)
    evidence = np.array([no_drop_e_value(a, b, n, margin) for a, b, _ in outcomes.tolist()])
    for drop, spare in itertools.product((margin, 1.01 * margin, 1.5 * margin, 1.0), (0, 0.3, 1)):
        gained = spare * (1 - drop) / 2  # from no gains at all to nothing on which both agree
        chance = multinomial.pmf(outcomes, n, [drop + gained, gained, 1 - drop - 2 * gained])
        mean = float(chance @ evidence)
        if drop == margin:
            assert mean == pytest.approx(1, abs=1e-9)
        else:
            assert mean < 1


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.02, 2.0, math.nan])
def test_evidence_needs_a_margin(margin):
    with pytest.raises(InputError, match="margin"):
        no_drop_e_value(1, 1, 10, margin)


@given(AMOUNT, AMOUNT, AMOUNT, st.sampled_from([1e-6, 0.02, 0.5, 0.999]))
def test_evidence_is_finite_and_never_negative(lost, gained, even, margin):
    assert 0 <= drop_e_value(lost, gained) < math.inf
    assert 0 <= no_drop_e_value(lost, gained, lost + gained + even, margin) < math.inf


# What the gate tells.


def test_exact_fails_on_one_lost_sample_and_passes_on_gains():
    rule = Rule(policy=Policy.EXACT)
    assert one(1, 0, 10_000, rule).answer is FAIL
    assert one(1, 0, 10_000, rule, decided_so_far).answer is FAIL
    assert one(1, 50, 10_000, rule).answer is FAIL
    assert one(0, 50, 10_000, rule).answer is PASS
    assert one(0, 0, 3, rule).answer is PASS


def test_only_strict_fails_a_drop_that_is_significant_but_within_the_margin():
    counts = (60, 20, 10_000)
    found = one(*counts)
    assert found.p < 0.001
    assert 0 < found.low < found.high < 0.02
    assert found.answer is PASS
    assert one(*counts, Rule(policy=Policy.STRICT)).answer is FAIL
    assert one(*counts, Rule(policy=Policy.STRICT), decided_so_far).answer is FAIL
    assert one(*counts, Rule(margin=0.004)).answer is FAIL


@pytest.mark.parametrize("policy", list(Policy))
def test_a_drop_of_chance_within_the_margin_passes(policy):
    found = one(5, 4, 10_000, Rule(policy=policy))
    assert found.answer is (FAIL if policy is Policy.EXACT else PASS)


@pytest.mark.parametrize("name", ["margin", "alpha"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.02, 2, math.inf, math.nan])
def test_shares_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} is .*give a share"):
        Rule(**{name: value})


@MODES
@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 3, 5)])
def test_counts_that_cannot_be_are_refused(mode, counts):
    with pytest.raises(InputError, match="count each sample once"):
        one(*counts, mode=mode)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.2])
@MODES
def test_a_finding_reports_the_95_percent_interval_of_the_drop(mode, alpha):
    found = one(12, 2, 44, Rule(alpha=alpha), mode)
    assert (found.low, found.high) == pytest.approx((0.069, 0.386), abs=5e-4)  # in print


@pytest.mark.parametrize(("alpha", "confidence"), [(0.05, 0.9), (0.01, 0.98), (0.2, 0.6)])
def test_a_pass_excludes_the_margin_at_alpha(alpha, confidence):
    most = tango(3, 3, 500, confidence)[1]
    assert one(3, 3, 500, Rule(margin=most + 1e-9, alpha=alpha)).answer is PASS
    assert one(3, 3, 500, Rule(margin=most - 1e-9, alpha=alpha)).answer is INCONCLUSIVE


def test_a_finding_reports_the_adjusted_p():
    counts = [(12, 2), (9, 1), (3, 3)]
    found = decided([of(*c, 100) for c in counts], Rule())
    assert [f.p for f in found] == holm([mcnemar_drop(*c) for c in counts])
    found = decided_so_far([of(*c, 100) for c in counts], Rule())
    assert [f.p for f in found] == [min(1, 3 / drop_e_value(*c)) for c in counts]


def test_counts_know_how_many_are_right_now():
    assert Counts("clean", lost=5, gained=2, n=100, before=90).after == 87


def test_the_verdict_is_the_worst():
    every = [one(5, 5, 1102), one(1, 1, 20), one(60, 5, 1102)]
    assert [f.answer for f in every] == [PASS, INCONCLUSIVE, FAIL]
    for order in itertools.permutations(every):
        assert overall(order) is FAIL
        assert overall([f for f in order if f.answer is not FAIL]) is INCONCLUSIVE
    assert overall(every[:1] * 2) is PASS


@MODES
@given(PAIRED, RULES)
def test_samples_are_needed_only_where_the_answer_is_open(mode, counts, rule):
    lost, gained, n = counts[0], counts[1], sum(counts)
    found = one(lost, gained, n, rule, mode)
    assert (found.needed >= 1) == (found.answer is INCONCLUSIVE)
    assert (found.needed == 0) == (found.answer is not INCONCLUSIVE)


def test_it_asks_for_about_as_many_samples_as_the_drop_takes_to_be_seen():
    asked = one(4, 3, 200)
    assert asked.answer is INCONCLUSIVE
    assert 200 + asked.needed == pytest.approx(samples_needed(0.04, 0.02), rel=0.03)


@pytest.mark.parametrize(("shares", "psi"), [(SAME, 0.04), (SAME_10, 0.1)])
def test_a_model_that_has_not_changed_passes_with_the_samples_that_it_takes(shares, psi):
    assert exact(shares, samples_to_pass(psi, 0.02))[PASS] == pytest.approx(0.945, abs=0.008)


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1])
def test_where_nothing_flips_it_takes_a_few_samples_all_the_same(margin):
    n = samples_to_pass(0.0, margin)
    assert one(0, 0, n, Rule(margin)).answer is PASS
    assert one(0, 0, n - 2, Rule(margin)).answer is INCONCLUSIVE


@pytest.mark.parametrize(
    ("shares", "n", "least"), [(SAME, 200, 0.92), (SAME, 500, 0.92), (DROPPED, 200, 0.9)]
)
def test_with_the_samples_it_asks_for_most_gates_decide(shares, n, least):
    rng = np.random.default_rng(13)
    asked = functools.cache(lambda lost, gained: one(lost, gained, n).needed)
    cells = [*shares, 1 - sum(shares)]
    said = []
    for lost, gained, _ in rng.multinomial(n, cells, size=GATES).tolist():
        needed = asked(lost, gained)
        if needed:
            more = rng.multinomial(needed, cells).tolist()
            said.append(answer(decided, (lost + more[0], gained + more[1], n + needed)))
    assert len(said) > 300
    assert 1 - shares_of(said)[INCONCLUSIVE] > least


@MODES
@given(PAIRED, AMOUNT, RULES, st.booleans(), PAIRED)
def test_more_losses_never_turn_a_fail_into_a_pass(mode, counts, more, rule, from_even, other):
    lost, gained, even = counts
    more = min(more, even) if from_even else more
    even -= more if from_even else 0
    before, after = (
        of(*counts[:2], sum(counts)),
        of(lost + more, gained, lost + more + gained + even),
    )
    other = of(*other[:2], sum(other), "other")
    for each in ((before,), (before, other)):
        first, second = mode(each, rule), mode((after, *each[1:]), rule)
        assert not (first[0].answer is FAIL and second[0].answer is PASS)


@MODES
@given(PAIRED, RULES)
def test_a_failing_measurement_with_losses_and_gains_swapped_does_not_fail(mode, counts, rule):
    lost, gained, n = counts[0], counts[1], sum(counts)
    if one(lost, gained, n, rule, mode).answer is FAIL:
        assert lost > gained
        assert one(gained, lost, n, rule, mode).answer is not FAIL


@given(PAIRED, RULES)
def test_strict_never_says_better_than_standard(counts, rule):
    lost, gained, n = counts[0], counts[1], sum(counts)
    said = [one(lost, gained, n, replace(rule, policy=p)).answer for p in Policy]
    standard, strict, exact = map(list(Answer).index, said)
    assert standard <= strict
    assert exact == (2 if lost else 0)
