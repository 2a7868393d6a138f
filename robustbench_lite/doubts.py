"""Reasons not to trust the figures, from what an evaluation saw anyway."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_lite.evidence import Evidence, Randomness
from robustbench_lite.stats import wilson
from robustbench_lite.trust import Doubt, fail, warn

EOT = 20
VOTES = 50  # a single pass broke .59 of a random net of which the majority broke .34
CONFIRMING = 350  # of many looks at 50 the luckiest counted: 34 of 60 left, where 37 are
NOT_FINITE = "the model returned NaN or infinite logits"

_ENOUGH_TO_TELL = 100
_SHIFTED = 0.4  # share of samples off by one that no confusion of two classes explains
_FEWEST_SHIFTED = 20
_UNDERFLOW = 80.0  # a class that lies so far behind has probability 0 in float32
_RISING = 0.05
_BLINDLY_WARN, _BLINDLY_FAIL = 0.002, 0.02
_FEW = 2
_LYING = 0.5
_DISAGREE = 0.002  # of the samples


def doubts_of(evidence: Evidence) -> tuple[Doubt, ...]:
    """Every reason that there is not to trust figures of these samples; none is good."""
    return (
        *_about_randomness(evidence),
        *_about_chance(evidence),
        *_about_outputs(evidence),
        *_about_gradients(evidence),
        *_about_claims(evidence),
        *_about_search(evidence),
    )


def _about_randomness(seen: Evidence) -> list[Doubt]:
    """A random model's verdicts are draws."""
    if seen.naive:
        return [fail("the attack does not know of the defenses: this is not robustness")]
    so = (
        f"gradients are averaged over {EOT} passes, and a break is the majority of {VOTES} and "
        f"then of {CONFIRMING} fresh ones"
    )
    told = {
        Randomness.AVERAGED: "the defense is random: every verdict is one more draw",
        Randomness.DECLARED: f"the defense is random: {so}",
        Randomness.FOUND: f"the model is random: {so}; another run can give another figure",
    }
    return [warn(told[seen.randomness])] if seen.randomness in told else []


def _about_chance(seen: Evidence) -> list[Doubt]:
    """A wrong normalisation or a wrong order of the classes shows as a guess."""
    for count, where in ((seen.above, "after"), (seen.below, "before")):
        if count > _SHIFTED * seen.n and count > seen.correct and seen.n >= _FEWEST_SHIFTED:
            return [
                fail(
                    f"{100 * count / seen.n:.0f} % of the samples are taken for the class {where} "
                    "their own: labels are shifted by one, as where a model has a class for the "
                    "background; give --class-map"
                )
            ]
    low, _ = wilson(seen.correct, seen.n)
    if low > 1 / seen.classes or seen.n < _ENOUGH_TO_TELL:
        return []
    return [
        fail(
            f"clean accuracy is not above chance (1 in {seen.classes}): "
            "check the model's normalisation (mean, std, bounds) and the order of its classes"
        )
    ]


def _about_outputs(seen: Evidence) -> list[Doubt]:
    """Outputs for which the usual losses have no gradient."""
    if seen.probabilities:
        return [
            warn(
                "the outputs are probabilities, whose gradients vanish: searched on their "
                "logarithms; let the model return logits"
            )
        ]
    if seen.apart > _UNDERFLOW:
        return [
            warn(
                f"logits lie {seen.apart:.3g} apart, where cross-entropy has no "
                "gradient: searched on rescaled logits"
            )
        ]
    return []


def _about_gradients(seen: Evidence) -> list[Doubt]:
    """Gradients that do not tell where the margin rises."""
    health = seen.health
    if health is None or not health.hidden:
        return []
    said = (
        f"gradients are zero on {100 * health.flat:.0f} % of the images probed"
        if health.flat > 0
        else f"gradients foretell differences of the margin with cosine {health.agreement:.2f} only"
    )
    if seen.blind:
        return [warn(f"{said}: a search without gradients was added")]
    say = fail if health.agreement < _LYING else warn
    return [say(f"{said}: add an attack without gradients, such as square")]


def _about_claims(seen: Evidence) -> list[Doubt]:
    """Adversarial examples that did not hold, and samples without a verdict."""
    found: list[Doubt] = []
    if seen.unverified:
        found.append(
            warn(
                f"{seen.unverified} adversarial examples did not fool the original model when it "
                "was asked again, and are not counted"
            )
        )
    if seen.disagreed >= _FEW and seen.disagreed > _DISAGREE * seen.n:
        found.append(
            warn(
                f"the faster copy and the original model disagreed on {seen.disagreed} adversarial "
                "examples, which were searched again on the original"
            )
        )
    if seen.errors:
        found.append(fail(f"{seen.errors} samples have no verdict: {NOT_FINITE}"))
    return found


def _about_search(seen: Evidence) -> list[Doubt]:
    """What the course of the search gives away."""
    found: list[Doubt] = []
    if seen.blindly >= _FEW and seen.blindly > _BLINDLY_WARN * seen.n:
        say = fail if seen.blindly > _BLINDLY_FAIL * seen.n else warn
        found.append(
            say(
                f"{seen.blindly} samples were broken only without gradients: gradients may hide "
                "more; give more queries or an attack made for this defense"
            )
        )
    if seen.rising >= _FEW and seen.rising > _RISING * seen.left:
        found.append(
            warn(
                f"on {seen.rising} of {seen.left} survivors the loss was still rising when the "
                "search ended: give more steps"
            )
        )
    return found


def too_short(runs: Sequence[tuple[int, int, str]], n: int) -> list[Doubt]:
    """A single step that breaks more than many do: their gradients lead nowhere.

    Args:
        runs: of each attack its gradient steps (0 for none), the samples that it left broken, its
            name.
        n: number of samples.
    """
    single = [broken for steps, broken, _ in runs if steps == 1]
    many = [(broken, attack) for steps, broken, attack in runs if steps > 1]
    if not single or not many:
        return []
    most, attack = max(many, key=lambda run: run[0])
    more = max(single) - most
    if more < _FEW or more <= _DISAGREE * n:
        return []
    return [
        warn(
            f"a single step broke {more} samples more than {attack} did, so that gradients "
            "lead astray after it: add restarts or an attack without gradients"
        )
    ]
