"""HopSkipJump: normals estimated at the border (Chen et al. 2020, arXiv:1904.02144, section 3)."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rbl_attacks.starts import starting_point
from robustbench_lite.attack import Attack
from robustbench_lite.geometry import Norm, flat_norm, per_row
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Threat

_SEARCHING, _HALVING, _PROBING, _JUMPING = range(4)


@dataclass(frozen=True)
class Hop:
    """The point on trial, the best point, and where each slot stands in its iteration.

    `low` and `high` are shares of the way from the image to `far`; the border lies between them.
    `total` and `hits` sum up the probes and those of them that fooled.
    """

    adv: Tensor
    best: Tensor
    far: Tensor
    low: Tensor
    high: Tensor
    phase: Tensor
    round: Tensor
    probes: Tensor
    plain: Tensor
    signed: Tensor
    hits: Tensor
    length: Tensor
    slope: Tensor


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """Halves the way to the border, estimates its normal by random probes, and jumps along it.

    In Linf a way is not a line but the clipping to ever smaller cubes, and a jump follows the signs
    of the normal.

    Args:
        steps: moves; a move is one query, or `chunk` of them while probing.
        probes: of the first estimate; they grow with the square root of the iteration (100 in the
            paper).
        chunk: probes asked about at once.
        examples: a data set with images to start from, as mnist5k; needed with a targeted goal.
    """

    needs = Access.DECISIONS
    minimal = True

    steps: int = 600
    probes: Annotated[int, Field(ge=1)] = 100
    chunk: Annotated[int, Field(ge=1)] = 25
    examples: str = ""

    def supports(self, threat: Threat) -> bool:
        """L2 and Linf."""
        return isinstance(threat, Lp) and threat.norm in (Norm.L2, Norm.LINF)

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Hop:
        """At a random image."""
        adv = starting_point(oracle, x, y, rng, self.examples)
        zeros = x.new_zeros(len(x))
        nothing = torch.zeros_like(y)
        blank = torch.zeros_like(x)
        return Hop(
            adv=adv,
            best=adv,
            far=adv,
            low=zeros,
            high=zeros + 1,
            phase=nothing,
            round=nothing + 1,
            probes=nothing,
            plain=blank,
            signed=blank,
            hits=zeros,
            length=zeros,
            slope=blank,
        )

    def step(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Hop) -> Hop:
        """Probe for the slots that estimate; one query for the others."""
        # Drawn by every slot and before the probes: a slot's numbers may not tell who else draws.
        drawn = starting_point(oracle, x, y, rng, self.examples)
        probing = state.phase == _PROBING
        state = self._probe(oracle, x, rng, state, probing)
        hit = self._look(oracle, state, ~probing)
        return self._advance(oracle.threat.norm, x, drawn, state, hit, probing)

    def _look(self, oracle: Oracle[Lp], state: Hop, which: Tensor) -> Tensor:
        hit = torch.zeros_like(which)
        rows = which.nonzero().flatten()
        if len(rows):
            with oracle.part(rows) as some:
                hit[rows] = some.fools(state.adv[rows])
        return hit

    def _probe(self, oracle: Oracle[Lp], x: Tensor, rng: Rng, state: Hop, which: Tensor) -> Hop:
        rows = which.nonzero().flatten()
        if not len(rows):
            return state
        noise = rng.normal(self.chunk, *x.shape[1:])[rows].to(x.dtype)
        noise = noise / noise.flatten(2).norm(dim=2).clamp(min=1e-12)[:, :, None, None, None]
        reach = _reach(oracle.threat.norm, state.best - x)[rows]
        base = state.best[rows][:, None]
        asked = (base + reach[:, None, None, None, None] * noise).clamp(0, 1)
        noise = (asked - base) / reach.clamp(min=1e-12)[:, None, None, None, None]
        with oracle.part(rows) as some:
            fooled = some.fools(asked)
        sign = torch.where(fooled, 1.0, -1.0)[:, :, None, None, None]
        plain, signed, hits = state.plain.clone(), state.signed.clone(), state.hits.clone()
        plain[rows] += noise.sum(1)
        signed[rows] += (noise * sign).sum(1)
        hits[rows] += fooled.sum(1)
        probes = state.probes + which * self.chunk
        return replace(state, plain=plain, signed=signed, hits=hits, probes=probes)

    def _advance(
        self,
        norm: Norm,
        x: Tensor,
        drawn: Tensor,
        state: Hop,
        hit: Tensor,
        probing: Tensor,
    ) -> Hop:
        searching, halving = state.phase == _SEARCHING, state.phase == _HALVING
        jumping = state.phase == _JUMPING
        middle = (state.low + state.high) / 2
        high = torch.where(halving & hit, middle, state.high)
        low = torch.where(halving & ~hit, middle, state.low)
        landed = halving & (high - low <= max(x[0].numel() ** -1.5, 1e-4))
        begun = (searching & hit) | (jumping & hit)
        far = torch.where(per_row(begun, x), state.adv, state.far)
        low = torch.where(begun, 0.0, low)
        high = torch.where(begun, 1.0, high)
        at_border = _along(norm, x, far, high)
        best = torch.where(per_row(landed, x), at_border, state.best)
        wanted = self.probes * state.round.to(x.dtype).sqrt()
        ready = probing & (state.probes >= wanted)
        mean = per_row(2 * state.hits / state.probes.clamp(min=1) - 1, x)
        slope = state.signed - mean * state.plain
        if norm is Norm.LINF:
            slope = slope.sign()
        slope = slope / per_row(flat_norm(slope, norm).clamp(min=1e-30), x)
        slope = torch.where(per_row(ready, x), slope, state.slope)
        distance = flat_norm(best - x, norm)
        length = torch.where(ready, distance / state.round.to(x.dtype).sqrt(), state.length)
        length = torch.where(jumping & ~hit, length / 2, length)
        given_up = jumping & ~hit & (length < 1e-6 * distance)
        phase = torch.where(begun, _HALVING, state.phase)
        phase = torch.where(landed | given_up, _PROBING, phase)
        phase = torch.where(ready, _JUMPING, phase)
        fresh = landed | given_up
        rows = per_row(fresh, x)
        half = _along(norm, x, far, (low + high) / 2)
        jump = (best + per_row(length, x) * slope).clamp(0, 1)
        adv = torch.where(per_row(phase == _SEARCHING, x), drawn, half)
        adv = torch.where(per_row(phase == _JUMPING, x), jump, adv)
        adv = torch.where(per_row(phase == _PROBING, x), best, adv)
        return replace(
            state,
            adv=adv,
            best=best,
            far=far,
            low=low,
            high=high,
            phase=phase,
            round=torch.where(landed, state.round + 1, state.round),
            probes=state.probes.masked_fill(fresh, 0),
            plain=state.plain.masked_fill(rows, 0),
            signed=state.signed.masked_fill(rows, 0),
            hits=state.hits.masked_fill(fresh, 0),
            length=length,
            slope=slope,
        )


def _along(norm: Norm, x: Tensor, far: Tensor, share: Tensor) -> Tensor:
    """The point at a share (N,) of the way from each image to `far`."""
    d = far - x
    if norm is Norm.L2:
        return x + per_row(share, x) * d
    bound = per_row(share * flat_norm(d, Norm.LINF), x)
    return x + d.minimum(bound).maximum(-bound)


def _reach(norm: Norm, d: Tensor) -> Tensor:
    """(N,) how far the probes go from the border, in L2 (section 3.3)."""
    size = d[:1].numel()
    if norm is Norm.L2:
        return flat_norm(d, Norm.L2) / float(size**0.75)
    return flat_norm(d, Norm.LINF) / float(size**0.25)
