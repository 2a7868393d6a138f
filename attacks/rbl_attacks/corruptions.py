"""Common corruptions, the weakest first (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.corruption import KINDS, Corruption
from robustbench_lite.errors import InputError
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Threat


@dataclass(frozen=True)
class Queue:
    """The proposal, how many have been asked about, and which fooled (NaN: not asked yet)."""

    adv: Tensor
    turn: Tensor
    done: Tensor
    trace: Tensor


@dataclass(frozen=True)
class Corruptions(Attack):
    """Every corruption, severity by severity, until one fools; it looks at labels only.

    So the size that it finds is the least severity that some corruption needs, and robust accuracy
    is the worst case over the kinds. The paper reports the mean error over kinds and severities
    instead: `stop=False` asks about all of them and puts on record which ones fooled.

    Args:
        steps: queries at the most; 75 ask about everything once, of one draw.
        kinds: names of corruptions separated by commas; empty for all 15.
        draws: random draws of each corruption.
        stop: leave at the first that fools.
    """

    needs = Access.DECISIONS
    minimal = True

    steps: int = 75
    kinds: str = ""
    draws: Annotated[int, Field(ge=1)] = 1
    stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self._names():
            if name not in KINDS:
                raise InputError(f"kinds names {name!r}; choose from {', '.join(KINDS)}")

    def supports(self, threat: Threat) -> bool:
        """Corruption."""
        return isinstance(threat, Corruption)

    def start(self, oracle: Oracle[Corruption], x: Tensor, y: Tensor, rng: Rng) -> Queue:
        """The first kind at severity 1."""
        turn = torch.zeros_like(y)
        kept = 0 if self.stop else len(self._names()) * self.draws * oracle.threat.severity
        trace = x.new_full((len(x), kept), torch.nan)
        return Queue(self._proposal(x, turn), turn, turn.bool(), trace)

    def step(
        self, oracle: Oracle[Corruption], x: Tensor, y: Tensor, rng: Rng, state: Queue
    ) -> Queue:
        """Ask about a corruption and go to the next."""
        hit = oracle.fools(state.adv)
        turn = state.turn + 1
        last = len(self._names()) * self.draws * oracle.threat.severity
        now = torch.arange(state.trace.shape[1], device=x.device) == state.turn[:, None]
        trace = torch.where(now, hit[:, None].to(x.dtype), state.trace)
        done = (hit & self.stop) | (turn >= last)
        return Queue(self._proposal(x, turn.clamp(max=last - 1)), turn, done, trace)

    def _names(self) -> list[str]:
        return self.kinds.split(",") if self.kinds else list(KINDS)

    def _proposal(self, x: Tensor, turn: Tensor) -> Tensor:
        """(N, 3) kind, severity and draw."""
        names = self._names()
        numbers = torch.tensor([list(KINDS).index(name) for name in names], device=x.device)
        rounds = turn // len(names)
        parts = [numbers[turn % len(names)], rounds // self.draws + 1, rounds % self.draws]
        return torch.stack(parts, 1).to(x.dtype)
