"""The contract of an attack: where to start, and what to do in one step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from robustbench_lite.errors import InputError
from robustbench_lite.settings import check_fields
from robustbench_lite.threat import Access, Threat

if TYPE_CHECKING:
    from robustbench_lite.oracle import Oracle
    from robustbench_lite.rng import Rng


class State(Protocol):
    """A dataclass of tensors whose first dimension is the slots; `adv` is the current proposal."""

    @property
    def adv(self) -> Tensor:
        """(N, ...): where each slot stands; images, or parameters that the threat renders."""
        ...


@runtime_checkable
class Finishing(State, Protocol):
    """A state that also tells which slots have nothing left to try; they leave before `steps`."""

    @property
    def done(self) -> Tensor:
        """(N,) bool."""
        ...


@runtime_checkable
class Tracing(State, Protocol):
    """A state that also tells its course, such as a learning curve; it is put on record."""

    @property
    def trace(self) -> Tensor:
        """(N, T): T numbers a slot, NaN where it has not got to; T is the same for all slots."""
        ...


@dataclass(frozen=True)
class Walk:
    """The state of an attack that remembers nothing but where it is.

    Args:
        adv: (N, ...) where each slot stands; images in [0, 1] for a norm.
    """

    adv: Tensor


@dataclass(frozen=True)
class Stage:
    """One attack of a plan, and which of the samples that are still robust go through it.

    What is asked of a sample is about that sample and the model only, so that nobody's outcome
    depends on who else is attacked.

    Attributes:
        attack: what is run.
        within: the largest gap that a sample may be left with (see `Record.gap`).
        swings: how many times its gap may be what the gaps that gradient attacks of more than ten
            steps came to differ by: where they agree, a wide gap is one that no run will close.
        apart: the least that those gaps must differ by: where they differ widely, gradients tell
            only part of the way.
        reach: how many times eps its smallest example may measure.
        hidden: only where the model's gradients mislead.
        robust_only: broken samples stay away also from an attack that would make their examples
            smaller.
    """

    attack: Attack
    within: float = math.inf
    swings: float = math.inf
    apart: float = 0.0
    reach: float = math.inf
    hidden: bool = False
    robust_only: bool = False

    def __str__(self) -> str:
        limits = {"gap": self.within, "swings": self.swings, "size / eps": self.reach}
        told = [f"{name} <= {limit:g}" for name, limit in limits.items() if limit < math.inf]
        told += [f"runs apart >= {self.apart:g}"] if self.apart else []
        told += ["gradients mislead"] if self.hidden else []
        return f"{self.attack}{'  if ' if told else ''}{', '.join(told)}"


class Plan(ABC):
    """What `evaluate` runs: an attack, or attacks put together. A frozen dataclass."""

    @abstractmethod
    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """What to run in `threat`, one after the other, each on the survivors of the former.

        The second and later ones of a kind are restarts: they get other random numbers.
        """

    @abstractmethod
    def supports(self, threat: Threat) -> bool:
        """Can it keep to `threat`?"""

    @property
    @abstractmethod
    def least_access(self) -> Access:
        """The least access with which it works."""

    def attacks(self, threat: Threat) -> tuple[Attack, ...]:
        """The attacks of its stages."""
        return tuple(stage.attack for stage in self.stages(threat))


@dataclass(frozen=True)
class Attack(Plan):
    """The bare search of one paper; a frozen dataclass whose fields are its hyper-parameters.

    It only proposes. Whether a proposal fools the classifier, what it cost and which is the best
    are the framework's business; so is the threat's geometry (`oracle.threat`).

    Attributes:
        needs: the least access it works with.
        minimal: it shrinks the perturbation, so one run gives the robust accuracy at every eps.
        targetable: it can reach for a class; False where its paper only leaves one.
        roams: it also asks outside of the threat, so that its answers do not tell how near success
            is within; minimal ones do by nature.
        steps: how often `step` is called for a sample at the most.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    minimal: ClassVar[bool] = False
    targetable: ClassVar[bool] = True
    roams: ClassVar[bool] = False

    steps: int

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; an attack needs 1 step or more")

    @abstractmethod
    def start(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng) -> State:
        """Where each slot starts.

        Args:
            oracle: the classifier as the attacker sees it, with the threat.
            x: (N, C, H, W) the original images.
            y: (N,) the class to leave or, with a targeted goal, the class to reach.
            rng: random numbers of each slot.
        """

    @abstractmethod
    def step(self, oracle: Oracle[Any], x: Tensor, y: Tensor, rng: Rng, state: Any) -> State:
        """One move of every slot. Slots stand at different steps: treat each by itself."""

    @property
    def longest_run(self) -> int:
        """How many steps it goes on from one start, where it starts more than once."""
        return self.steps

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """Itself, once."""
        return (Stage(self),)

    @property
    def least_access(self) -> Access:
        """What it needs."""
        return self.needs

    def __str__(self) -> str:
        values = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True)
class Around(Plan):
    """Another plan, changed: it keeps to what that one keeps to, with the same access."""

    plan: Plan

    def supports(self, threat: Threat) -> bool:
        """As the plan does."""
        return self.plan.supports(threat)

    @property
    def least_access(self) -> Access:
        """As the plan's."""
        return self.plan.least_access


@dataclass(frozen=True)
class Restarts(Around):
    """The same several times with other random numbers, on what is still robust.

    Args:
        plan: an attack, or attacks put together.
        n: how often at the most, 1 or more.
    """

    n: int = 5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"restarts is {self.n}; give 1 or more")

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """The stages of the plan, `n` times."""
        return self.plan.stages(threat) * self.n

    def __str__(self) -> str:
        return f"Restarts({self.plan}, {self.n})"


@dataclass(frozen=True, init=False)
class Cascade(Plan):
    """Several plans in turn; the survivors of one go on to the next. Put cheap ones first.

    Args:
        plans: one or more.
    """

    plans: tuple[Plan, ...]

    def __init__(self, *plans: Plan) -> None:
        if not plans:
            raise InputError("a cascade needs at least one attack")
        object.__setattr__(self, "plans", plans)

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """The stages of every plan, in order."""
        return tuple(stage for plan in self.plans for stage in plan.stages(threat))

    def supports(self, threat: Threat) -> bool:
        """All of its plans do."""
        return all(plan.supports(threat) for plan in self.plans)

    @property
    def least_access(self) -> Access:
        """The most that one of its plans needs."""
        return max(plan.least_access for plan in self.plans)

    def __str__(self) -> str:
        return f"Cascade({', '.join(map(str, self.plans))})"


@dataclass(frozen=True)
class Near(Around):
    """`plan` on survivors only, and of these on those that former attacks came near to breaking.

    Args:
        plan: what to run.
        within: the largest gap (see `Record.gap`).
        swings: the largest gap in units of what gradient attacks differed by (see `Stage`).
        apart: the least that they differed by.
        reach: the largest size of the smallest example, in units of eps.
    """

    within: float = math.inf
    swings: float = math.inf
    apart: float = 0.0
    reach: float = math.inf

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """Those of the plan, for fewer samples."""
        return tuple(
            replace(
                stage,
                within=min(self.within, stage.within),
                swings=min(self.swings, stage.swings),
                apart=max(self.apart, stage.apart),
                reach=min(self.reach, stage.reach),
                robust_only=True,
            )
            for stage in self.plan.stages(threat)
        )

    def __str__(self) -> str:
        limits = {"within": self.within, "swings": self.swings, "reach": self.reach}
        told = [f"{name}={limit:g}" for name, limit in limits.items() if limit < math.inf]
        told += [f"apart={self.apart:g}"] if self.apart else []
        return f"Near({', '.join([str(self.plan), *told])})"


@dataclass(frozen=True)
class IfHidden(Around):
    """`plan` where the model's gradients mislead, nothing elsewhere."""

    def stages(self, threat: Threat) -> tuple[Stage, ...]:
        """Those of the plan, under that condition."""
        return tuple(
            replace(stage, hidden=True, robust_only=True) for stage in self.plan.stages(threat)
        )

    def __str__(self) -> str:
        return f"IfHidden({self.plan})"
