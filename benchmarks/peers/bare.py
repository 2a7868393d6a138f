"""What the model alone costs, and how often evaluate() asks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rounds import Laps, Run
from subject import Subject
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Call:
    """One call of a model: of the original or the prepared copy, with a gradient, how wide."""

    original: bool
    backward: bool
    width: int


def images(calls: Sequence[Call], *, original: bool, backward: bool) -> int:
    """How many images went through in calls of one kind."""
    kind = (original, backward)
    return sum(call.width for call in calls if (call.original, call.backward) == kind)


def replay(
    calls: Sequence[Call], original: nn.Module, prepared: nn.Module, subject: Subject
) -> Run:
    """The same calls once more, in their order and at their batch sizes, and nothing else."""
    widest = max(call.width for call in calls)
    repeats = -(-widest // len(subject.x))
    x, y = subject.x.repeat(repeats, 1, 1, 1)[:widest], subject.y.repeat(repeats)[:widest]

    def run(_round: int) -> None:
        for call in calls:
            model = original if call.original else prepared
            if call.backward:
                _pair(model, x[: call.width], y[: call.width])
            else:
                with torch.no_grad():
                    model(x[: call.width])

    return run


def _pair(model: nn.Module, x: Tensor, y: Tensor) -> None:
    leaf = x.detach().requires_grad_(True)
    loss = functional.cross_entropy(model(leaf), y, reduction="sum")
    torch.autograd.grad(loss, leaf)


def pairs(model: nn.Module, subject: Subject, steps: int) -> Run:
    """`steps` forward passes and input gradients of every image, and nothing else."""

    def run(_round: int) -> None:
        for x, y in subject.batches():
            for _ in range(steps):
                _pair(model, x, y)

    return run


def looks(model: nn.Module, subject: Subject, steps: int) -> Run:
    """`steps` forward passes of every image without gradients, and nothing else."""

    def run(_round: int) -> None:
        with torch.no_grad():
            for x, _ in subject.batches():
                for _ in range(steps):
                    model(x)

    return run


def each(laps: Laps, subject: Subject, steps: int) -> float:
    """Median seconds of one pass of one image."""
    return laps.median / (steps * len(subject.x))


def counted(subject: Subject, run: Callable[[], object]) -> list[Call]:
    """The calls that `run` makes, in order, seen by a hook on the model.

    evaluate() attacks a deep copy of the model, and a copy keeps the hook: so both are counted,
    apart. The run is slower by the hook and must not be timed.
    """
    calls: list[Call] = []
    original = id(subject.model)

    def note(module: nn.Module, args: tuple[Tensor, ...], _logits: Tensor) -> None:
        backward = args[0].requires_grad and torch.is_grad_enabled()
        calls.append(Call(id(module) == original, backward, len(args[0])))

    handle = subject.model.register_forward_hook(note)
    try:
        run()
    finally:
        handle.remove()
    return calls
