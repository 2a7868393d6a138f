"""Patches by reinforcement learning, from scores (Yang et al. 2020, arXiv:2004.05682)."""

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
from robustbench_lite.structured import Patch
from robustbench_lite.threat import Access, Threat

_STRETCH = (1.0, 0.5, 2.0, 0.25, 4.0)  # height by width
_WEAVES = 4  # plain, across, down, chequered
_PERIODS = (1, 2, 4)
_COLOURS = 8
_STEADY = 0.9  # share of the former spread of rewards that is kept


@dataclass(frozen=True)
class Learner:
    """The best image, the policy and what it has learned from.

    `policy` (N, F, M) holds the logits of F independent choices of up to M options; `value` and
    `spread` are the baseline and the typical distance of rewards from it; `best` is the best
    reward, `trace` (N, T) the mean reward of each move.
    """

    adv: Tensor
    policy: Tensor
    value: Tensor
    spread: Tensor
    best: Tensor
    trace: Tensor
    turn: Tensor


@dataclass(frozen=True)
class PatchRL(Attack):
    """A policy over place, shape and texture of a patch, trained for each image by REINFORCE.

    After PatchAttack: an action puts a textured patch on the image, the reward is the margin of the
    answer by the span of its logits. There an LSTM chooses among textures from a dictionary
    that was trained on ImageNet; here the policy is a table of independent choices (row, column,
    shape, weave, period, two colours), so that it needs no data and fits any image, and the
    baseline is a value that learns from the same rewards. The record of a sample holds the learning
    curve: the mean reward of each move.

    Args:
        steps: moves of the policy.
        actions: patches tried in each move, one query each.
        learning_rate: of the policy.
        value_rate: of the baseline.
        places: choices of rows and of columns at the most.
    """

    needs = Access.SCORES

    steps: int = 100
    actions: Annotated[int, Field(ge=2)] = 16
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    value_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    places: Annotated[int, Field(ge=1)] = 16

    def supports(self, threat: Threat) -> bool:
        """Patch."""
        return isinstance(threat, Patch)

    def start(self, oracle: Oracle[Patch], x: Tensor, y: Tensor, rng: Rng) -> Learner:
        """All options alike, but those that do not exist."""
        options = self._options(x)
        policy = x.new_full((len(x), len(options), max(options)), -torch.inf)
        for choice, count in enumerate(options):
            policy[:, choice, :count] = 0
        zeros = x.new_zeros(len(x))
        trace = x.new_full((len(x), self.steps), torch.nan)
        return Learner(x, policy, zeros, zeros, zeros - torch.inf, trace, torch.zeros_like(y))

    def step(
        self, oracle: Oracle[Patch], x: Tensor, y: Tensor, rng: Rng, state: Learner
    ) -> Learner:
        """Draw actions, see their rewards, make the good ones more likely."""
        n, (_, choices, most) = len(x), state.policy.shape
        luck = -(-rng.uniform(self.actions, choices, most).log()).log()  # Gumbel's trick
        action = (state.policy[:, None] + luck).argmax(3)
        images = self._painted(oracle.threat, x, action)
        logits = oracle.logits(images).flatten(0, 1)
        labels = y.repeat_interleave(self.actions)
        span = logits.amax(1) - logits.amin(1)
        told = (span > 0).reshape(n, self.actions)  # not so where the budget did not reach
        reward = Loss.MARGIN(logits, labels, targeted=oracle.targeted) / span
        reward = reward.reshape(n, self.actions).where(told, torch.nan)
        course = reward.nanmean(1)
        mean = course.nan_to_num(0.0)
        reward = torch.where(reward.isnan(), mean[:, None], reward)
        first = state.turn == 0
        value = torch.where(first, mean, state.value)
        off = (reward - value[:, None]).abs().mean(1)
        spread = torch.where(first, off, _STEADY * state.spread + (1 - _STEADY) * off)
        advantage = (reward - value[:, None]) / spread.clamp(min=1e-6)[:, None]
        chosen = torch.zeros_like(state.policy)[:, None].repeat(1, self.actions, 1, 1)
        chosen = chosen.scatter(3, action[:, :, :, None], 1.0)
        score = chosen - state.policy.softmax(2)[:, None]
        ascent = (advantage.clamp(-3, 3)[:, :, None, None] * score).mean(1)
        highest, which = reward.max(1)
        rows = torch.arange(n, device=x.device)
        record = per_row(highest > state.best, x)
        turn = state.turn[:, None].clamp(max=self.steps - 1)
        return Learner(
            adv=torch.where(record, images[rows, which], state.adv),
            policy=state.policy + self.learning_rate * ascent,
            value=value + self.value_rate * (mean - value),
            spread=spread,
            best=state.best.maximum(highest),
            trace=state.trace.scatter(1, turn, course[:, None]),
            turn=state.turn + 1,
        )

    def _options(self, x: Tensor) -> tuple[int, ...]:
        rows, columns = (min(self.places, length) for length in x.shape[2:])
        return (rows, columns, len(_STRETCH), _WEAVES, len(_PERIODS), _COLOURS, _COLOURS)

    def _painted(self, threat: Patch, x: Tensor, action: Tensor) -> Tensor:
        """(N, A, C, H, W) the images with each action's patch."""
        height_of, width_of = (
            torch.tensor([threat.sides(x, s)[side] for s in _STRETCH], device=x.device)
            for side in (0, 1)
        )
        options = self._options(x)
        height, width = height_of[action[..., 2]], width_of[action[..., 2]]
        down = _offsets(action[..., 0], options[0], height, x.shape[2])
        right = _offsets(action[..., 1], options[1], width, x.shape[3])
        inside = ((down >= 0) & (down < height[..., None]))[..., :, None]
        inside = inside & ((right >= 0) & (right < width[..., None]))[..., None, :]
        weave = action[..., 3, None, None]
        period = torch.tensor(_PERIODS, device=x.device)[action[..., 4]][..., None, None]
        across, along = down[..., :, None] // period, right[..., None, :] // period
        odd = across * ((weave == 1) | (weave == 3)) + along * ((weave == 2) | (weave == 3))
        palette = _palette(x)
        one, two = palette[action[..., 5]], palette[action[..., 6]]
        second = (odd % 2 == 1)[:, :, None]
        colour = torch.where(second, two[..., None, None], one[..., None, None])
        return torch.where(inside[:, :, None], colour, x[:, None])


def _offsets(choice: Tensor, options: int, extent: Tensor, length: int) -> Tensor:
    """(N, A, length): each row's (column's) distance from the patch's first one."""
    room = length - extent
    first = torch.div(choice * room, max(1, options - 1), rounding_mode="floor")
    return torch.arange(length, device=choice.device) - first[..., None]


def _palette(x: Tensor) -> Tensor:
    """(8, C): the corners of the colours of three channels, else eight levels of grey."""
    number = torch.arange(_COLOURS, device=x.device)
    channels = x.shape[1]
    if channels == 3:
        return torch.stack([number >> bit & 1 for bit in range(3)], 1).to(x.dtype)
    return (number.to(x.dtype) / (_COLOURS - 1))[:, None].expand(-1, channels)
