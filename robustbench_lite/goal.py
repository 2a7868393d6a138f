"""What counts as success: a value, not code inside an attack."""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from robustbench_lite.data import Dataset, content_of
from robustbench_lite.errors import InputError
from robustbench_lite.rng import key_of


@dataclass(frozen=True)
class Untargeted:
    """Any class but the label."""

    def __str__(self) -> str:
        return "untargeted"


class Choice(StrEnum):
    """How a targeted goal chooses its class."""

    NEXT = "next"
    RANDOM = "random"


@dataclass(frozen=True)
class Targeted:
    """One class that is not the label.

    Args:
        target: `next` (label + 1), `random` (drawn for each sample by the seed), or a class; with
            a class, the samples of that class count as not attackable and stay robust.
    """

    target: Choice | int = Choice.NEXT

    def __str__(self) -> str:
        return f"targeted {self.target}"

    def labels(self, data: Dataset, classes: int, seed: int) -> Tensor:
        """(N,) the class to reach for each sample.

        Raises:
            InputError: the class is not one of the model's.
        """
        if self.target == Choice.NEXT:
            return (data.y + 1) % classes
        if self.target == Choice.RANDOM:
            draws = [key_of("target", seed, content_of(i)) % (classes - 1) for i in data.ids]
            return (data.y + 1 + torch.tensor(draws)) % classes
        if not 0 <= self.target < classes:
            raise InputError(
                f"target class {self.target} does not exist; the model knows 0 to {classes - 1}"
            )
        return torch.full_like(data.y, self.target)


Goal = Untargeted | Targeted
