"""FAB in its untargeted form (Croce and Hein 2020, arXiv:1907.02044, section 3.2)."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.fab import Pull, approach
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_CLASSES = 10


@dataclass(frozen=True)
class Border:
    """Where each slot stands near the border of its class."""

    adv: Tensor


@dataclass(frozen=True)
class FABU(Attack):
    """Moves onto the nearest of all linearised borders each time, drawn towards the image.

    Each move costs a backward pass a class, so `fab`, which goes to one border after the other,
    finds smaller examples for the same evaluations. Of many classes the nine with the largest
    logits are looked at.

    Args:
        steps: moves; 100 in the paper.
        alpha_max: how much the image draws at the most; 0.1 in the paper.
        eta: how far beyond the border a move goes; 1.05 in the paper.
        beta: how far from the image the search goes on after a success; 0.9 in the paper.
        random_start: start at a random point near the image, for restarts.
    """

    needs = Access.GRADIENTS
    minimal = True

    steps: int = 100
    alpha_max: Annotated[float, Field(gt=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.9
    random_start: bool = False

    def supports(self, threat: Threat) -> bool:
        """L1, L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm is not Norm.L0

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Border:
        """At the image itself, or at a random point within half of eps."""
        if not self.random_start:
            return Border(x)
        threat = oracle.threat
        eps = threat.eps if threat.eps < float("inf") else 0.1 * float(x[0].numel()) ** 0.5
        return Border(replace(threat, eps=eps / 2).random_point(x, rng))

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Border) -> Border:
        """Draw an example towards the image, then move onto the nearest linearised border."""
        lead = Loss.MARGIN(oracle.logits(state.adv), y, targeted=oracle.targeted)
        fooled = per_row(lead > 0, x)
        here = torch.where(fooled, x + self.beta * (state.adv - x), state.adv)
        ranked: list[Tensor] = []
        among = 1 if oracle.targeted else min(_CLASSES, oracle.classes) - 1

        def gaps(logits: Tensor) -> Tensor:
            top = logits.scatter(1, y[:, None], -torch.inf).topk(among, dim=1).indices
            ranked.append(top)
            own = torch.zeros_like(logits).scatter(1, y[:, None], 1.0)
            if oracle.targeted:
                other = torch.zeros_like(logits).scatter(1, top, 1.0)
                return (own - other)[:, None]
            others = torch.zeros(*top.shape, logits.shape[1], device=logits.device)
            return others.scatter(2, top[:, :, None], 1.0) - own[:, None]

        logits, normals = oracle.gradients(here, gaps)
        top = logits.gather(1, ranked[0])
        value = top - logits.gather(1, y[:, None])
        value = -value if oracle.targeted else value
        slope = flat_norm(normals.flatten(0, 1), oracle.threat.norm.dual).reshape(value.shape)
        near = value.abs() / slope.clamp(min=torch.finfo(value.dtype).tiny)
        best = near.argmin(1)
        rows = torch.arange(len(x), device=x.device)
        norm, pull = oracle.threat.norm, Pull(self.alpha_max, self.eta, beta=1.0)  # drawn already
        return Border(approach(pull, norm, x, here, value[rows, best], normals[rows, best]))
