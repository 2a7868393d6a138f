"""How an evaluation runs, as far as it may not change what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch

from robustbench_lite.errors import InputError

_EXACT_WIDTH = 32
_USUAL_WIDTH = 256


class Precision(StrEnum):
    """In which numbers a net computes; adversarial examples are verified in float32 in any case."""

    FLOAT32 = "float32"
    BF16 = "bf16"


@dataclass(frozen=True)
class Settings:
    """How to run, as far as it may not change what comes out.

    Attributes:
        batch_size: slots; None where a probe is to find how many are best.
        exact: pad every call to a fixed number of slots, so that results are equal bit by bit
            whatever the batch size, the order and the sharding.
        early_leave: False keeps fooled samples in their slots (for measuring what leaving saves).
        device: where to compute.
        precision: of the search; rounding decides more samples in bf16.
        compiled: the search asks a copy made by torch.compile.
    """

    batch_size: int | None = 256
    exact: bool = False
    early_leave: bool = True
    precision: Precision = Precision.FLOAT32
    compiled: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def width(self) -> int:
        """How many slots there are."""
        return _EXACT_WIDTH if self.exact else self.batch_size or _USUAL_WIDTH


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands: samples attacked so far, all samples, still robust."""

    done: int
    total: int
    robust: int


def is_of_memory(error: RuntimeError) -> bool:
    """Was there not enough memory, on whatever device?"""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def cuda_devices(device: torch.device) -> list[int]:
    """The numbers of the GPUs that `device` stands for."""
    return [device.index or 0] if device.type == "cuda" else []


def halved(settings: Settings, error: RuntimeError) -> Settings:
    """Half as many slots after an error of memory, which changes no outcome.

    Raises:
        RuntimeError: `error` itself, if it is of another kind.
        InputError: there is nothing left to halve.
    """
    if not is_of_memory(error):
        raise error
    if settings.exact or settings.width == 1:
        remedy = "leave out --exact" if settings.exact else "give another --device"
        raise InputError(f"memory does not hold {settings.width} images; {remedy}") from error
    return replace(settings, batch_size=settings.width // 2)
