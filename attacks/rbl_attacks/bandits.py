"""Bandits with time and data priors (Ilyas et al. 2019, arXiv:1807.07978, algorithm 3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_RATE = {Norm.LINF: 0.1, Norm.L2: 0.03}
_EXPLORE = {Norm.LINF: 1.0, Norm.L2: 0.01}
_STEADY = 0.9  # share of the former usual difference that is kept


@dataclass(frozen=True)
class Belief:
    """The point, and what is believed of the gradient: (N, C, h, w), a value a tile.

    `usual` (N,) is the usual difference of two probes' margins, 0 before the first.
    """

    adv: Tensor
    prior: Tensor
    usual: Tensor


@dataclass(frozen=True)
class Bandits(Attack):
    """Keeps a coarse belief of the gradient, corrects it by two probes a move, and follows it.

    The belief is constant on square tiles (the data prior) and goes on from move to move (the time
    prior); it learns by exponentiated gradients in Linf and by plain ones in L2. What two probes
    tell is the difference of their margins by the usual one, so that the rates fit every model (the
    paper takes the slope of the cross-entropy as it is). A move is asked about itself too: three
    queries.

    Args:
        steps: moves.
        tile: side of a tile in pixels; 6 on the images of 299 in the paper, 1 suits those of 32.
        step_size: length of a move, in units of eps; 0.2 in Linf in the paper (0.01 of 0.05).
        probe: distance of the probes from the point, in L2; 0.1 in the paper.
        rate: of learning; 0 for 0.1 in Linf and 0.03 in L2 (100 and 0.1 in the paper, of its
            slopes).
        explore: standard deviation of the change of belief that the probes try, in L2; 0 for the
            paper's, which is 1 in Linf and 0.01 in L2.
    """

    needs = Access.SCORES

    steps: int = 3000
    tile: Annotated[int, Field(ge=1)] = 1
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    probe: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    explore: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def supports(self, threat: Threat) -> bool:
        """L2 and Linf, at a finite eps."""
        if not isinstance(threat, Lp) or threat.norm not in _RATE:
            return False
        return threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Belief:
        """At the image, believing nothing."""
        rows, columns = (-(-length // self.tile) for length in x.shape[2:])
        return Belief(x, x.new_zeros(len(x), x.shape[1], rows, columns), x.new_zeros(len(x)))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Belief) -> Belief:
        """Probe in two directions, correct the belief, move."""
        norm, prior = oracle.threat.norm, state.prior
        explore = self.explore or _EXPLORE[norm]
        change = rng.normal(*prior.shape[1:]).to(x.dtype) / prior[0].numel() ** 0.5
        tried = (prior + way * explore * change for way in (1.0, -1.0))
        points = [state.adv, *(state.adv + self.probe * _unit(self._spread(p, x)) for p in tried)]
        logits = oracle.logits(torch.stack(points, 1))
        plus, minus = (Loss.MARGIN(logits[:, k], y, targeted=oracle.targeted) for k in (1, 2))
        apart = (plus - minus).abs()
        kept = _STEADY * state.usual + (1 - _STEADY) * apart
        usual = torch.where(state.usual > 0, kept, apart)
        told = per_row((plus - minus) / usual.clamp(min=torch.finfo(x.dtype).tiny), x)
        prior = self._learn(norm, prior, (self.rate or _RATE[norm]) * told * change)
        length = self.step_size * oracle.threat.eps
        move = length * oracle.threat.steepest(self._spread(prior, x), state.adv)
        return Belief(oracle.threat.project(x, state.adv + move), prior, usual)

    def _spread(self, prior: Tensor, x: Tensor) -> Tensor:
        """The belief at every pixel."""
        rows, columns = x.shape[2:]
        wide = prior.repeat_interleave(self.tile, 2).repeat_interleave(self.tile, 3)
        return wide[:, :, :rows, :columns]

    def _learn(self, norm: Norm, prior: Tensor, move: Tensor) -> Tensor:
        if norm is Norm.L2:
            return prior + move
        odds = torch.atanh(prior.clamp(-1 + 1e-6, 1 - 1e-6)) + move
        return torch.tanh(odds)


def _unit(d: Tensor) -> Tensor:
    return d / per_row(flat_norm(d, Norm.L2).clamp(min=1e-30), d)
