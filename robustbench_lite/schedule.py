"""How the weights move: the optimizer, the learning rate over a run, the average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from robustbench_lite.card import Recipe

_RISE = 0.2
_SWA_FROM = 0.5


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that are to be learned."""
    groups = list(_groups(model, recipe.weight_decay))
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def _groups(model: nn.Module, weight_decay: float) -> Iterable[dict[str, Any]]:
    """Weight decay for matrices and filters only."""
    learned = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]


def rate(recipe: Recipe, done: float) -> float:
    """The learning rate when the share `done` of the run is over, 0 to 1.

    `one-cycle` rises linearly during the first fifth and falls to zero along a cosine; `cosine`
    only falls; `steps` divides by ten after a half and after three quarters; `constant` stays.
    """
    match recipe.schedule:
        case "one-cycle" if done < _RISE:
            return recipe.lr * (0.01 + done / _RISE)
        case "one-cycle":
            return recipe.lr * _cosine((done - _RISE) / (1 - _RISE))
        case "cosine":
            return recipe.lr * _cosine(done)
        case "steps":
            return recipe.lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
        case _:
            return recipe.lr


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def decay_of(recipe: Recipe, moves: int, epoch_moves: int) -> float | None:
    """How much of the average stays at a move; None: it is left alone.

    `ema` is an exponential mean with the recipe's decay, shorter at the start. `swa` (Izmailov et
    al. 2018, arXiv:1803.05407) follows the weights through the first half of the run and is then
    the plain mean of the weights at the ends of epochs.

    Args:
        recipe: which average.
        moves: moves so far, without this one.
        epoch_moves: moves an epoch.
    """
    if recipe.average == "ema":
        return min(recipe.ema, 1 - 1 / (2 + moves))
    first = math.ceil(_SWA_FROM * recipe.epochs) * epoch_moves
    if moves + 1 <= first:
        return 0.0
    if (moves + 1) % epoch_moves:
        return None
    kept = (moves + 1 - first) // epoch_moves  # the weights at `first` are the mean's first
    return kept / (kept + 1)


def blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average towards the model's parameters and buffers; `decay` of it stays."""
    with torch.no_grad():
        for old, new in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if old.is_floating_point() and decay:
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)
