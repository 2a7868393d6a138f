"""How an evaluation runs, as far as it may not change what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from robustbench_lite.errors import InputError

_EXACT_WIDTH = 32


@dataclass(frozen=True)
class Settings:
    """How to run, as far as it may not change what comes out.

    Attributes:
        batch_size: slots.
        exact: pad every call to a fixed number of slots, so that results are equal bit by bit
            whatever the batch size, the order and the sharding.
        early_leave: False keeps fooled samples in their slots (for measuring what leaving saves).
        device: where to compute.
    """

    batch_size: int = 256
    exact: bool = False
    early_leave: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def width(self) -> int:
        """How many slots there are."""
        return _EXACT_WIDTH if self.exact else self.batch_size


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands: samples attacked so far, all samples, still robust."""

    done: int
    total: int
    robust: int


def halved(settings: Settings, error: RuntimeError) -> Settings:
    """Half as many slots after an error of memory, which changes no outcome.

    Raises:
        RuntimeError: `error` itself, if it is of another kind.
        InputError: there is nothing left to halve.
    """
    if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)):
        raise error
    if settings.exact or settings.batch_size == 1:
        remedy = "leave out --exact" if settings.exact else "give another --device"
        raise InputError(f"memory does not hold {settings.width} images; {remedy}") from error
    return replace(settings, batch_size=settings.batch_size // 2)
