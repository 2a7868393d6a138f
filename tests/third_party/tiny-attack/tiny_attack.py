"""Random points of the threat; needs nothing but decisions."""
from dataclasses import dataclass
from robustbench_lite import Access, Attack, Lp, Walk
@dataclass(frozen=True)
class Noise(Attack):
    """Guessing."""
    needs = Access.DECISIONS
    steps: int = 20
    def supports(self, threat):
        return isinstance(threat, Lp) and threat.eps < float("inf")
    def start(self, oracle, x, y, rng):
        return Walk(oracle.threat.random_point(x, rng))
    def step(self, oracle, x, y, rng, state):
        oracle.labels(state.adv)
        return self.start(oracle, x, y, rng)
