"""Train a model by a recipe: equal recipe and data give equal weights, also after a resume."""

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.card import Recipe
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset
from robustbench_lite.defense import Training
from robustbench_lite.errors import InputError
from robustbench_lite.rng import Rng, key_of
from robustbench_lite.threat import Lp

_PAD = 4


@runtime_checkable
class Fitting(Protocol):
    """A module that learns at once instead of step by step, as a support vector machine does."""

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Learn from images (N, C, H, W) as the module sees them, and labels (N,)."""


@dataclass(frozen=True)
class Progress:
    """Where a training run stands.

    Attributes:
        epoch: the present epoch, from 1.
        epochs: all epochs.
        done: share of the whole run, 0 to 1.
        loss: mean of the present epoch so far.
        epoch_over: the epoch has just ended and its checkpoint is written.
    """

    epoch: int
    epochs: int
    done: float
    loss: float
    epoch_over: bool


def keys_of(data: Dataset, *parts: str | int) -> Tensor:
    """(N,) int64 keys of the samples, by content."""
    return torch.tensor([key_of(i.partition(".")[0], *parts) for i in data.ids])


def ids_digest(data: Dataset) -> str:
    """The sha256 of the sorted sample ids: which samples a model has seen, in any order."""
    return hashlib.sha256("\n".join(sorted(data.ids)).encode()).hexdigest()


def augmented(x: Tensor, rng: Rng, kind: str) -> Tensor:
    """A random crop after zero padding by 4, and for `crop-flip` a random mirror image (N, ...)."""
    if kind == "none":
        return x
    n, _, height, width = x.shape
    padded = functional.pad(x, (_PAD,) * 4)
    shift = rng.integers(2 * _PAD + 1, 2)
    columns = torch.arange(width).expand(n, width)
    if kind == "crop-flip":
        mirrored = rng.integers(2, 1).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows = torch.arange(height)[None, :] + shift[:, :1]
    columns = columns + shift[:, 1:]
    picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _rate(recipe: Recipe, done: float) -> float:
    """One cycle: linearly up during the first fifth, then a cosine down to zero."""
    if done < 0.2:
        return recipe.lr * (0.01 + done / 0.2)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))


def _blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for old, new in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)


def train(
    recipe: Recipe,
    build: Callable[[], nn.Module],
    defense: Training,
    data: Dataset,
    checkpoint: Path,
    report: Callable[[Progress], None],
) -> tuple[nn.Module, float]:
    """Train, or go on from `checkpoint` if it belongs to this recipe and these samples.

    Args:
        recipe: all that decides the weights.
        build: makes the untrained module; called under a seeded generator.
        defense: the objective.
        data: what to learn from.
        checkpoint: written after every epoch, by rename, so that a kill loses one epoch at most.
        report: called after every batch and every epoch.

    Returns:
        The averaged module in eval mode, and the minutes that training took.

    Raises:
        InputError: the checkpoint belongs to another recipe or to other samples, the loss became
            NaN or infinite, or a module that is fitted at once is to be defended.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = build()
    model = Classifier(module, mean=recipe.mean or None, std=recipe.std or None)
    if isinstance(module, Fitting):
        return _fit(module, model, recipe, data, report)
    model = model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    optimizer = torch.optim.SGD(
        _groups(model, recipe.weight_decay), lr=recipe.lr, momentum=0.9, nesterov=True
    )
    owner = f"{recipe.digest()}-{ids_digest(data)[:16]}"
    first, minutes = 0, 0.0
    if checkpoint.exists():
        saved = _load_checkpoint(checkpoint, owner)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first, minutes = saved["epoch"], saved["minutes"]
    batches = math.ceil(len(data) / recipe.batch_size)
    clock = _clock()
    for epoch in range(first, recipe.epochs):
        keys = keys_of(data, "train", recipe.seed, epoch)
        order = keys.argsort()
        total = 0.0
        for batch in range(batches):
            done = (epoch + batch / batches) / recipe.epochs
            index = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = _rate(recipe, done)
            ramp = min(1.0, done / recipe.warmup) if recipe.warmup else 1.0
            total += _step(model, optimizer, defense, data, index, keys[index], ramp, recipe)
            decay = min(recipe.ema, 1 - 1 / (2 + epoch * batches + batch))
            _blend(average, model, decay)
            if batch + 1 < batches:
                report(Progress(epoch + 1, recipe.epochs, done, total / (batch + 1), False))
        if not math.isfinite(total):
            raise InputError(
                f"training diverged in epoch {epoch + 1}: lower the learning rate (--lr)"
            )
        minutes += clock()
        _save_checkpoint(
            checkpoint,
            {
                "owner": owner,
                "epoch": epoch + 1,
                "minutes": minutes,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
        )
        done = (epoch + 1) / recipe.epochs
        report(Progress(epoch + 1, recipe.epochs, done, total / batches, True))
    return average.model.eval(), minutes


def _fit(
    module: nn.Module,
    model: Classifier,
    recipe: Recipe,
    data: Dataset,
    report: Callable[[Progress], None],
) -> tuple[nn.Module, float]:
    assert isinstance(module, Fitting)
    if recipe.defense != Recipe.model_fields["defense"].default:
        raise InputError(
            f"architecture {recipe.arch!r} is fitted at once and takes no defense; "
            f"leave out --defense {recipe.defense}"
        )
    clock = _clock()
    order = keys_of(data, "train", recipe.seed, 0).argsort()
    module.fit(data.x[order] * model.scale + model.shift, data.y[order], recipe.seed)
    report(Progress(1, 1, 1.0, 0.0, True))
    return module.eval(), clock()


def _step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    defense: Training,
    data: Dataset,
    index: Tensor,
    keys: Tensor,
    ramp: float,
    recipe: Recipe,
) -> float:
    rng = Rng(keys)
    x = augmented(data.x[index], rng, recipe.augment)
    x = x.contiguous(memory_format=torch.channels_last)
    threat = Lp(recipe.norm, recipe.eps * ramp)
    model.train()
    losses = defense.losses(model, x, data.y[index], threat, rng)
    values: list[float] = []
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = next(losses, None)
        if loss is None:
            return sum(values) / len(values)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        values.append(float(loss.detach()))


def _groups(model: nn.Module, weight_decay: float) -> Iterable[dict[str, Any]]:
    """Weight decay for matrices and filters only."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _clock() -> Callable[[], float]:
    """Minutes since the last call."""
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        now = time.monotonic()
        past, last = now - last, now
        return past / 60

    return lap


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def _load_checkpoint(path: Path, owner: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except Exception as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it") from error
    if state.get("owner") != owner:
        raise InputError(
            f"checkpoint {path} belongs to another recipe or other data; "
            "delete it or choose another --out"
        )
    return state
