"""RayS: a search over the corners of the Linf ball (Chen and Gu 2020, arXiv:2006.12792)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_ENOUGH = 1e-3  # the binary search along a ray ends at this precision


@dataclass(frozen=True)
class Ray:
    """The best signs with their radius, the signs on trial, and where the search stands.

    low and high enclose the radius on trial; `stage` and `block` are the part of the image whose
    signs are turned; `closing` tells that the binary search is on.
    """

    adv: Tensor
    signs: Tensor
    radius: Tensor
    trial: Tensor
    low: Tensor
    high: Tensor
    stage: Tensor
    block: Tensor
    closing: Tensor


@dataclass(frozen=True)
class RayS(Attack):
    """Turns the signs of ever smaller blocks and keeps a turn where the border comes nearer.

    A turn is asked about at the best radius so far first; only if that fools, a binary search finds
    its radius.

    Args:
        steps: queries; 10000 in the paper.
    """

    needs = Access.DECISIONS
    minimal = True
    targetable = False

    steps: int = 5000

    def supports(self, threat: Threat) -> bool:
        """Linf."""
        return isinstance(threat, Lp) and threat.norm is Norm.LINF

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Ray:
        """All signs plus, as in the paper, at the full length of a ray."""
        signs = torch.ones_like(x)
        full = x.new_ones(len(x))
        nothing = torch.zeros_like(y)
        return Ray(
            adv=(x + signs).clamp(0, 1),
            signs=signs,
            radius=full + 1,
            trial=signs,
            low=full * 0,
            high=full,
            stage=nothing,
            block=nothing - 1,
            closing=nothing.bool(),
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Ray) -> Ray:
        """One query: a halving on the ray on trial, or the first look at a new one."""
        hit = oracle.fools(state.adv)
        asked = ((state.low + state.high) / 2).where(state.closing, state.high)
        high = torch.where(hit, asked, state.high)
        low = torch.where(state.closing & ~hit, asked, state.low)
        opened = ~state.closing & hit
        closing = state.closing | opened
        found = closing & (high - low <= _ENOUGH)
        better = found & (high < state.radius)
        next_ray = (~closing) | found
        state = replace(
            state,
            signs=torch.where(per_row(better, x), state.trial, state.signs),
            radius=torch.where(better, high, state.radius),
            low=low,
            high=high,
            closing=closing & ~found,
        )
        state = self._turned(x, state, next_ray)
        asked = ((state.low + state.high) / 2).where(state.closing, state.high)
        return replace(state, adv=(x + per_row(asked, x) * state.trial).clamp(0, 1))

    def _turned(self, x: Tensor, state: Ray, which: Tensor) -> Ray:
        size = x[0].numel() if len(x) else 1
        block = torch.where(which, state.block + 1, state.block)
        over = block * _width(size, state.stage) >= size
        stage = torch.where(over, state.stage + 1, state.stage)
        stage = torch.where(2 ** (stage - 1).clamp(min=0) >= size, 0, stage)
        block = torch.where(over, 0, block)
        width = _width(size, stage)
        index = torch.arange(size, device=x.device)
        inside = (index >= (block * width)[:, None]) & (index < ((block + 1) * width)[:, None])
        turned = torch.where(inside.reshape(x.shape), -state.signs, state.signs)
        ceiling = torch.where(state.radius > 1, 1.0, state.radius * (1 - 1e-4))
        return replace(
            state,
            trial=torch.where(per_row(which, x), turned, state.trial),
            low=torch.where(which, 0.0, state.low),
            high=torch.where(which, ceiling, state.high),
            stage=stage,
            block=block,
        )


def _width(size: int, stage: Tensor) -> Tensor:
    """(N,) components in a block, of an image of `size` components."""
    return -(-size // (2**stage).clamp(max=size))
