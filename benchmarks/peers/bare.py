"""What the model alone costs, and how often evaluate() asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rounds import Laps, Run
from subject import Subject
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Passes:
    """Images that went through a model: with and without an input gradient.

    `pairs` are forward + backward passes and `looks` are forward passes only, of the prepared
    copy; `original_pairs` and `original_looks` are those of the original model.
    """

    pairs: int = 0
    looks: int = 0
    original_pairs: int = 0
    original_looks: int = 0


def pairs(model: nn.Module, subject: Subject, steps: int) -> Run:
    """`steps` forward passes and input gradients of every image, and nothing else."""

    def run(_round: int) -> None:
        for x, y in subject.batches():
            for _ in range(steps):
                leaf = x.detach().requires_grad_(True)
                loss = functional.cross_entropy(model(leaf), y, reduction="sum")
                torch.autograd.grad(loss, leaf)

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


def counted(subject: Subject, run: Callable[[], object]) -> Passes:
    """The passes that `run` makes, seen by a hook on the model.

    evaluate() attacks a deep copy of the model, and a copy keeps the hook: so both are counted,
    apart. The run is slower by the hook and must not be timed.
    """
    passes = Passes()
    original = id(subject.model)

    def note(module: nn.Module, args: tuple[Tensor, ...], _logits: Tensor) -> None:
        kind = "pairs" if args[0].requires_grad and torch.is_grad_enabled() else "looks"
        name = f"original_{kind}" if id(module) == original else kind
        setattr(passes, name, getattr(passes, name) + len(args[0]))

    handle = subject.model.register_forward_hook(note)
    try:
        run()
    finally:
        handle.remove()
    return passes
