"""A net in training: its weights, their average, and what the held-out samples have told."""

import copy
from typing import Any

import torch
from torch import Tensor

from robustbench_lite.card import Recipe
from robustbench_lite.classifier import Classifier
from robustbench_lite.schedule import optimizer_of

_COLLAPSE = 0.2  # of robust accuracy within the run (Wong et al. 2020, arXiv:2001.03994, section 5)


class Trainee:
    """The weights, their average, the optimizer, and what the held-out samples have told."""

    def __init__(self, recipe: Recipe, model: Classifier) -> None:
        self.recipe = recipe
        self.model = model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(model)
        self.optimizer = optimizer_of(model, recipe)
        self.epoch, self.minutes = 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.robust, self.stale, self.stopped = -1.0, 0, ""

    def weigh(self, robust: float) -> None:
        """Keep the average if it is the best so far; decide whether to go on."""
        if robust > self.robust:
            self.robust, self.stale = robust, 0
            self.best = {k: v.clone() for k, v in self.average.state_dict().items()}
            return
        self.stale += 1
        fell = f"robust accuracy on held-out samples fell from {self.robust:.3f} to {robust:.3f}"
        if robust < self.robust - _COLLAPSE:
            self.stopped = f"{fell} (catastrophic overfitting)"
        elif self.recipe.patience and self.stale >= self.recipe.patience:
            self.stopped = (
                f"robust accuracy on held-out samples has not risen for {self.stale} epochs"
            )

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "epoch": self.epoch,
            "minutes": self.minutes,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "robust": self.robust,
            "stale": self.stale,
            "stopped": self.stopped,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to where `state` was asked for."""
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.minutes, self.best = saved["epoch"], saved["minutes"], saved["best"]
        self.robust, self.stale = saved["robust"], saved["stale"]
        self.stopped = saved["stopped"]
