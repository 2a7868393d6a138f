"""An attack of 15 lines, held to the promises that every attack must keep, and put to work."""

# %% Where to start, and what to do in one step of every sample: more is not needed.
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustbench_lite import (
    Attack,
    Loss,
    Lp,
    Norm,
    Oracle,
    Rng,
    Threat,
    Walk,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.testing import check_attack


@dataclass(frozen=True)
class Climb(Attack):
    """Steps of a quarter of eps up the margin, each projected back into the threat."""

    steps: int = 20

    def supports(self, threat: Threat) -> bool:
        """L2 and Linf."""
        return (
            isinstance(threat, Lp) and threat.norm in (Norm.L2, Norm.LINF) and threat.eps < math.inf
        )

    def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> Walk:
        """At the image."""
        return Walk(x)

    def step(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng, state: Walk) -> Walk:
        """One step up."""
        threat = oracle.threat
        gradient = oracle.gradient(state.adv, y, Loss.MARGIN)
        move = threat.eps / 4 * threat.steepest(gradient, state.adv)
        return Walk(threat.project(x, state.adv + move))


# %% Does it keep the promises? Each check runs on small models whose answers are known.
checks = check_attack(Climb())
for check in checks:
    if not check.passed:
        print(check)
print(f"{sum(check.passed for check in checks)} of {len(checks)} checks passed")

# %% How does it compare? Nothing else is needed: the framework judges.
model, data = load_model("digits-cnn-at"), load_data("digits").sample(200)
for name, attack in {
    "climb": Climb(),
    "pgd": load_attack("pgd"),
    "fgsm": load_attack("fgsm"),
}.items():
    outcome = evaluate(model, attack, Lp(Norm.LINF, 0.15), data)
    queries = outcome.queries_per_sample
    print(f"{name:<6} robust {outcome.robust_accuracy:.1%}, {queries:.1f} queries a sample")
