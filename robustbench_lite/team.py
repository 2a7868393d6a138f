"""Several processes that train one net, each on its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Team:
    """Who trains together; alone by default.

    Gradients are averaged after each backward pass, by hand: torch's DistributedDataParallel
    counts on one forward and one backward pass a move, and adversarial training makes many.

    Attributes:
        rank: number of this process, from 0, which reports and writes.
        size: number of processes.
        local: number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Team:
        """The team that torchrun has started this process in."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if not all(os.environ.get(name, "").isdecimal() for name in names):
            return cls()
        return cls(*(int(os.environ[name]) for name in names))

    @property
    def leads(self) -> bool:
        """Does this process report and write?"""
        return self.rank == 0

    def meet(self, device: torch.device) -> None:
        """Wait for the others; before anything is averaged."""
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def part(self) -> None:
        """Leave the others, who have all done their work."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def share(self, index: Tensor) -> tuple[Tensor, int]:
        """What of a batch is this process's, and for how many samples it counts.

        Where there are fewer samples than processes some get one that does not count.
        """
        own = index[self.rank :: self.size]
        return (own, len(own)) if len(own) else (index[:1], 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter], count: int) -> None:
        """Make every gradient the mean over the whole batch, of which `count` were here."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients]) * count
        whole = torch.cat([flat, flat.new_tensor([count])])
        distributed.all_reduce(whole)
        mean = whole[:-1] / whole[-1]
        parts = torch.split(mean, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.reshape(gradient.shape))

    def average_buffers(self, module: nn.Module) -> None:
        """Make every float buffer, such as batch norm's statistics, the mean over the team."""
        if self.size == 1:
            return
        for buffer in module.buffers():
            if buffer.is_floating_point():
                distributed.all_reduce(buffer)
                buffer /= self.size
