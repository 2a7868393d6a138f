"""NES: PGD on a gradient estimated from scores (Ilyas et al. 2018, arXiv:1804.08598)."""

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


@dataclass(frozen=True)
class Drift:
    """The point, and the running mean of the estimated gradients."""

    adv: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class NES(Attack):
    """Estimates the gradient of the margin by antithetic Gaussian probes and climbs it.

    The paper's section 3.1, with the figures of its table for query-limited attacks. A move is
    asked about itself too, so that it costs one query more than it has probes.

    Args:
        steps: moves.
        probes: of one estimate, in pairs; 50 in the paper.
        sigma: standard deviation of the probes; 0.001 in the paper.
        step_size: length of a move, in units of eps; 0.2 in the paper (0.01 of 0.05).
        momentum: share of the former estimates that is kept; 0.9 in the paper.
    """

    needs = Access.SCORES

    steps: int = 200
    probes: Annotated[int, Field(ge=2, multiple_of=2)] = 50
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf, at a finite eps."""
        if not isinstance(threat, Lp) or threat.norm is Norm.L0:
            return False
        return threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Drift:
        """At the image itself."""
        return Drift(x, torch.zeros_like(x))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Drift) -> Drift:
        """One estimate and one move."""
        half = rng.normal(self.probes // 2, *x.shape[1:]).to(x.dtype)
        noise = torch.cat([half, -half], 1)
        around = state.adv[:, None] + self.sigma * noise
        logits = oracle.logits(torch.cat([state.adv[:, None], around], 1))[:, 1:]
        labels = y[:, None].expand(logits.shape[:2]).flatten()
        value = Loss.MARGIN(logits.flatten(0, 1), labels, targeted=oracle.targeted)
        value = value.reshape(logits.shape[:2])
        value = value - value.mean(1, keepdim=True)
        slope = (value[:, :, None, None, None] * noise).sum(1)
        length = flat_norm(slope, Norm.L2)
        unit = slope / per_row(length.clamp(min=1e-30), x)
        momentum = self.momentum * state.momentum + (1 - self.momentum) * unit
        move = oracle.threat.farthest(momentum, state.adv, self.step_size * oracle.threat.eps)
        return Drift(oracle.threat.project(x, state.adv + move), momentum)
