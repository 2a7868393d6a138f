"""One pixel: differential evolution (Su et al. 2019, arXiv:1710.08864, section 3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustbench_lite.attack import Attack
from robustbench_lite.geometry import per_row
from robustbench_lite.loss import Loss
from robustbench_lite.oracle import Oracle
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access, Lp, Norm, Threat


@dataclass(frozen=True)
class Population:
    """The fittest image, and (N, P, U, 2 + V) the members with their margins (N, P).

    A member has U changes; a change is a place (row and column in (0, 1), or place and nothing) and
    V values.
    """

    adv: Tensor
    members: Tensor
    value: Tensor
    turn: Tensor


@dataclass(frozen=True)
class OnePixel(Attack):
    """Evolves the places and values of a few pixels; the margin decides between child and parent.

    eps counts components: 3 of a colour image is one pixel. With an eps below the number of
    channels single components change.

    Args:
        steps: generations; 100 in the paper.
        population: members, one query each in a generation; 400 in the paper.
        scale: how much of the difference of two members is added to a third; 0.5 in the paper.
    """

    needs = Access.SCORES

    steps: int = 100
    population: Annotated[int, Field(ge=4)] = 100
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5

    def supports(self, threat: Threat) -> bool:
        """L0 at a finite eps."""
        return isinstance(threat, Lp) and threat.norm is Norm.L0 and threat.eps < float("inf")

    def start(self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng) -> Population:
        """Places at random; values normal around the middle with a half as deviation, cut."""
        changes, values = _form(x, oracle.threat.eps)
        place = rng.uniform(self.population, changes, 2).to(x.dtype)
        value = (0.5 + 0.5 * rng.normal(self.population, changes, values)).to(x.dtype)
        members = torch.cat([place, value.clamp(0, 1)], 3)
        lowest = x.new_full((len(x), self.population), -torch.inf)
        return Population(x, members, lowest, torch.zeros_like(y))

    def step(
        self, oracle: Oracle[Lp], x: Tensor, y: Tensor, rng: Rng, state: Population
    ) -> Population:
        """One generation: every member has a child, and the fitter of the two stays."""
        n, count = len(x), self.population
        # Three others for each member: the diagonal is never among the largest.
        draws = rng.uniform(count, count)
        draws = draws - torch.eye(count, device=x.device)
        chosen = draws.topk(3, dim=2).indices.reshape(n, -1)
        shape = (*chosen.shape, *state.members.shape[2:])
        others = state.members.gather(1, chosen[:, :, None, None].expand(shape))
        one, two, three = others.reshape(n, count, 3, *shape[2:]).unbind(2)
        mixed = (one + self.scale * (two - three)).clamp(0, 1)
        first = (state.turn == 0)[:, None, None, None]
        child = torch.where(first, state.members, mixed)
        images = _painted(x, child)
        logits = oracle.logits(images)
        value = Loss.MARGIN(
            logits.flatten(0, 1), y.repeat_interleave(count), targeted=oracle.targeted
        ).reshape(n, count)
        fitter = value > state.value
        members = torch.where(fitter[:, :, None, None], child, state.members)
        best, which = value.max(1)
        rows = torch.arange(n, device=x.device)
        record = per_row(best > state.value.amax(1), x)
        adv = torch.where(record, images[rows, which], state.adv)
        return Population(adv, members, torch.where(fitter, value, state.value), state.turn + 1)


def _form(x: Tensor, eps: float) -> tuple[int, int]:
    """How many changes, and how many values each."""
    channels, components = x.shape[1], x.shape[1:].numel()
    allowed = min(int(eps), components)
    values = channels if allowed >= channels else 1
    return allowed // values, values


def _painted(x: Tensor, members: Tensor) -> Tensor:
    """(N, P, C, H, W) the images with each member's changes."""
    channels, rows, columns = x.shape[1:]
    values = members.shape[3] - 2
    layers = channels if values == 1 else 1  # of single components one axis is channel and row
    height = layers * rows
    down = (members[..., 0] * height).long().clamp(max=height - 1)
    across = (members[..., 1] * columns).long().clamp(max=columns - 1)
    images = x[:, None].repeat(1, members.shape[1], 1, 1, 1)
    flat = images.reshape(*images.shape[:2], values, height * columns)
    place = (down * columns + across)[:, :, None, :].expand(-1, -1, values, -1)
    flat = flat.scatter(3, place, members[..., 2:].transpose(2, 3))
    return flat.reshape(images.shape)
