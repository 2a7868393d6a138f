"""One attack on trial: the plan, the threats it is tried in, and how a check says what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustbench_lite.attack import Around, Attack, Cascade, Plan, Restarts, Stage
from robustbench_lite.corruption import Corruption
from robustbench_lite.data import Dataset
from robustbench_lite.goal import Goal
from robustbench_lite.judge import evaluate
from robustbench_lite.results import Outcome, Record
from robustbench_lite.structured import Patch, Spatial
from robustbench_lite.threat import Access, Lp, Norm, Threat

_EPS = {Norm.L0: 3.0, Norm.L1: 0.3, Norm.L2: 0.1, Norm.LINF: 0.02}


class PromiseError(AssertionError):
    """A promise that was not kept."""


def require(holds: bool, message: str) -> None:
    """Raise PromiseError with `message` unless `holds`."""
    if not holds:
        raise PromiseError(message)


@dataclass(frozen=True)
class Trial:
    """A plan and the threats that it says it supports."""

    attack: Plan
    threats: tuple[Threat, ...]

    @property
    def minimal(self) -> bool:
        """Every stage shrinks the perturbation."""
        return all(attack.minimal for attack in self.attack.attacks(self.threats[0]))

    @property
    def balls(self) -> tuple[Lp, ...]:
        """Those of the threats that have an eps."""
        return tuple(threat for threat in self.threats if isinstance(threat, Lp))

    def shortened(self, steps: int) -> Trial:
        """The same with at most so many steps a stage, for checks that hold at any number."""
        return replace(self, attack=shortened(self.attack, steps))

    def run(
        self,
        model: nn.Module,
        threat: Threat,
        data: Dataset,
        *,
        goal: Goal | None = None,
        seed: int = 0,
        batch_size: int = 64,
        exact: bool = False,
    ) -> Outcome:
        """The judge's outcome."""
        return evaluate(
            model,
            self.attack,
            threat,
            data,
            goal=goal,
            seed=seed,
            batch_size=batch_size,
            exact=exact,
        )


Test = Callable[[Trial], str]


def threats_of(attack: Plan, access: Access | None = None) -> tuple[Threat, ...]:
    """A usual threat of every kind that `attack` supports."""
    given = Access.GRADIENTS if access is None else access
    every: list[Threat] = [Lp(norm, eps, given) for norm, eps in _EPS.items()]
    every += [Patch(0.25, given), Spatial(45, 0.25, given), Corruption(5, given)]
    return tuple(threat for threat in every if attack.supports(threat))


def limited(threat: Threat, queries: int) -> Threat:
    """The threat with a cap of queries."""
    return replace(threat, queries=queries)  # type: ignore[type-var]  # threats are dataclasses


def seen_through(threat: Threat, access: Access) -> Threat:
    """The threat with another access."""
    return replace(threat, access=access)  # type: ignore[type-var]  # threats are dataclasses


def shortened(plan: Plan, steps: int) -> Plan:
    """`plan` with at most so many steps in each of its attacks."""
    match plan:
        case Attack():
            return replace(plan, steps=min(plan.steps, steps))
        case Restarts():
            return Restarts(shortened(plan.plan, steps), min(plan.n, 2))
        case Cascade():
            return Cascade(*(shortened(inner, steps) for inner in plan.plans))
    return _Short(plan, steps)


@dataclass(frozen=True)
class _Short(Around):
    """Any plan with at most so many steps in each of its attacks."""

    steps: int

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        return tuple(
            replace(stage, attack=replace(stage.attack, steps=min(stage.attack.steps, self.steps)))
            for stage in self.plan.stages(threat)
        )


def norm_of(d: Tensor, norm: Norm) -> Tensor:
    """(N,) float64 norm of each row, written down once more so that the judge is checked too."""
    order = {Norm.L0: 0.0, Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: torch.inf}[norm]
    size: Tensor = torch.linalg.vector_norm(d.double().flatten(1), order, dim=1)
    return size


def broken_rows(outcome: Outcome) -> Tensor:
    """Positions of the samples that an attack broke."""
    found = [r.correct and not r.robust and not r.error for r in outcome.records]
    return torch.tensor(found).nonzero().flatten()


def by_id(outcomes: list[Outcome]) -> dict[str, tuple[Record, Tensor]]:
    """Record and adversarial image of every sample of several shards."""
    return {
        r.id: (r, image)
        for o in outcomes
        for r, image in zip(o.records, o.adversarials, strict=True)
    }
