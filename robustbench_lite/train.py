"""Train a model by a recipe: equal recipe and data give equal weights, also after a resume."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from robustbench_lite.augment import augmented
from robustbench_lite.card import Recipe
from robustbench_lite.checkpoint import load_checkpoint, save_checkpoint
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset
from robustbench_lite.defended import Defended
from robustbench_lite.defense import Training
from robustbench_lite.errors import InputError
from robustbench_lite.rng import Rng, key_of
from robustbench_lite.running import Precision
from robustbench_lite.schedule import blend, decay_of, rate
from robustbench_lite.team import Team
from robustbench_lite.threat import Lp
from robustbench_lite.trainee import Trainee


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
        clean: accuracy on the held-out samples after the epoch, where some are held out.
        robust: robust accuracy on them.
        stopped: why the run ends before its last epoch.
    """

    epoch: int
    epochs: int
    done: float
    loss: float
    epoch_over: bool
    clean: float | None = None
    robust: float | None = None
    stopped: str = ""


Probe = Callable[[Classifier, Dataset], tuple[float, float]]


def keys_of(data: Dataset, *parts: str | int) -> Tensor:
    """(N,) int64 keys of the samples, by content."""
    return torch.tensor([key_of(i.partition(".")[0], *parts) for i in data.ids])


def ids_digest(data: Dataset) -> str:
    """The sha256 of the sorted sample ids: which samples a model has seen, in any order."""
    return hashlib.sha256("\n".join(sorted(data.ids)).encode()).hexdigest()


def held_out(data: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """What is learned from, and `count` samples that are only looked at; no image is in both.

    Raises:
        InputError: fewer samples are left than held out.
    """
    if 2 * count > len(data):
        raise InputError(
            f"{count} held-out samples leave {max(0, len(data) - count)} of {len(data)} to learn "
            "from; hold out less (--holdout)"
        )
    chosen = data.sample(count, seed)
    return data.without(chosen), chosen


def train(
    recipe: Recipe,
    build: Callable[[], Classifier],
    defense: Training,
    data: Dataset,
    checkpoint: Path,
    report: Callable[[Progress], None],
    probe: Probe | None = None,
    *,
    team: Team | None = None,
    device: torch.device | None = None,
) -> tuple[Classifier, float]:
    """Train, or go on from `checkpoint` if it belongs to this recipe and these samples.

    With held-out samples the weights of the epoch with the best robust accuracy on them are kept
    (robust overfitting: Rice et al. 2020, arXiv:2002.11569), and the run ends when that accuracy
    collapses or has not risen for `patience` epochs.

    Args:
        recipe: all that decides the weights.
        build: makes the untrained classifier; called under a seeded generator.
        defense: the objective.
        data: what to learn from, and to hold out.
        checkpoint: written after every epoch, by rename, so that a kill loses one epoch at most.
        report: called after every batch and every epoch.
        probe: clean and robust accuracy on the held-out samples; needed if the recipe has some.
        team: who trains together; this process alone, if None. One of them reports and writes.
        device: where the net is; the CPU, if None.

    Returns:
        The classifier with averaged weights in eval mode, and the minutes that training took.

    Raises:
        InputError: the checkpoint belongs to another recipe or to other samples, the loss became
            NaN or infinite, or a module that is fitted at once is to be defended.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build()
    if isinstance(model.model, Fitting):
        return _fit(model.model, model, recipe, data, report)
    owner = f"{recipe.digest()}-{ids_digest(data)[:16]}"
    watched: Dataset | None = None
    if recipe.holdout:
        assert probe is not None
        data, watched = held_out(data, recipe.holdout, recipe.seed)
    team = team or Team()
    device = device or torch.device("cpu")
    team.meet(device)
    run = Trainee(recipe, model.to(device))
    saved = load_checkpoint(checkpoint, owner)
    if saved is not None:
        run.restore(saved)
    clock = _clock()
    while run.epoch < recipe.epochs and not run.stopped:
        loss = _epoch(run, defense, data, team, report if team.leads else _silently)
        team.average_buffers(run.model)
        team.average_buffers(run.average)
        clean = robust = None
        run.epoch += 1
        if watched is not None and probe is not None:
            clean, robust = probe(run.average.eval(), watched)
            run.weigh(robust)
        run.minutes += clock()
        if team.leads:
            save_checkpoint(checkpoint, run.state() | {"owner": owner})
            done = run.epoch / recipe.epochs
            report(Progress(run.epoch, recipe.epochs, done, loss, True, clean, robust, run.stopped))
    team.part()
    if run.best:
        run.average.load_state_dict(run.best)
    return run.average.eval(), run.minutes


def _silently(progress: Progress) -> None:
    """What those report who do not lead."""


def _epoch(
    run: Trainee, defense: Training, data: Dataset, team: Team, report: Callable[[Progress], None]
) -> float:
    """One pass over the data; the mean loss."""
    recipe, epoch = run.recipe, run.epoch
    batches = math.ceil(len(data) / recipe.batch_size)
    keys = keys_of(data, "train", recipe.seed, epoch)
    order = keys.argsort()
    total = 0.0
    for batch in range(batches):
        done = (epoch + batch / batches) / recipe.epochs
        index = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
        for group in run.optimizer.param_groups:
            group["lr"] = rate(recipe, done)
        ramp = min(1.0, done / recipe.warmup) if recipe.warmup else 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key_of("train", recipe.seed, epoch, batch) + team.rank)  # dropout
            total += _step(run, defense, data, index, keys, ramp, team)
        decay = decay_of(recipe, epoch * batches + batch, batches)
        if decay is not None:
            blend(run.average, run.model, decay)
        if batch + 1 < batches:
            report(Progress(epoch + 1, recipe.epochs, done, total / (batch + 1), False))
    if not math.isfinite(total):
        raise InputError(f"training diverged in epoch {epoch + 1}: lower the learning rate (--lr)")
    return total / batches


def _fit(
    module: Fitting,
    model: Classifier,
    recipe: Recipe,
    data: Dataset,
    report: Callable[[Progress], None],
) -> tuple[Classifier, float]:
    if isinstance(model, Defended) or recipe.defense != Recipe.model_fields["defense"].default:
        named = f"--behind {recipe.behind[0]}" if recipe.behind else f"--defense {recipe.defense}"
        raise InputError(
            f"architecture {recipe.arch!r} is fitted at once and takes no defense; "
            f"leave out {named}"
        )
    clock = _clock()
    order = keys_of(data, "train", recipe.seed, 0).argsort()
    module.fit(data.x[order] * model.scale + model.shift, data.y[order], recipe.seed)
    report(Progress(1, 1, 1.0, 0.0, True))
    return model.eval(), clock()


def _step(
    run: Trainee,
    defense: Training,
    data: Dataset,
    batch: Tensor,
    keys: Tensor,
    ramp: float,
    team: Team,
) -> float:
    recipe, model = run.recipe, run.model
    index, count = team.share(batch)
    device = model.device
    rng = Rng(keys[index].to(device))
    x, y = augmented(data.x[index].to(device), rng, recipe), data.y[index].to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    threat = Lp(recipe.norm, recipe.eps * ramp)
    _learning(model)
    losses = defense.losses(model, x, y, threat, rng)
    values: list[float] = []
    while True:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=recipe.precision is Precision.BF16
        ):
            loss = next(losses, None)
        if loss is None:
            return sum(values) / len(values)
        run.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        team.average_gradients(model.parameters(), count)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        run.optimizer.step()
        values.append(float(loss.detach()))


def _learning(model: Classifier) -> None:
    """In training mode, but for frozen layers: batch norm keeps its statistics."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _clock() -> Callable[[], float]:
    """Minutes since the last call."""
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        now = time.monotonic()
        past, last = now - last, now
        return past / 60

    return lap
