"""Checks against traps that known attack libraries fell into; the numbers are FIELD.md's."""

import torch
from torch import Tensor, nn

from robustbench_lite.data import Dataset
from robustbench_lite.testing.models import (
    Linear,
    Plateau,
    labelled,
    linear_problem,
    signed_weights,
)
from robustbench_lite.testing.trial import Trial, require
from robustbench_lite.threat import Lp, Threat

_APART = (0.01, 0.02, 0.04, 0.3, 8.0, 9.0, 10.0, 11.0)  # no sample near eps: rounding cannot flip


def shifted_logits(trial: Trial) -> str:
    """100 less on every logit is the same classifier (trap 1)."""
    for threat in trial.threats:
        problem = linear_problem(threat, _APART, classes=5)
        plain = _robust(trial, problem.model, threat, problem.data)
        shifted = Linear(signed_weights(5, 36, 0), offset=-100.0)
        _require_same(plain, _robust(trial, shifted, threat, problem.data), f"{threat}: -100")
    return "-100"


def scaled_logits(trial: Trial) -> str:
    """Larger or smaller logits are the same decisions, so the same outcome (trap 13)."""
    for threat in trial.threats:
        problem = linear_problem(threat, _APART, classes=5)
        plain = _robust(trial, problem.model, threat, problem.data)
        for scale in (1024.0, 1 / 1024, 1e3, 1e-3):
            scaled = Linear(signed_weights(5, 36, 0), scale=scale)
            found = _robust(trial, scaled, threat, problem.data)
            _require_same(plain, found, f"{threat}: times {scale:.4g}")
    return "1024, 1/1024, 1000, 1/1000"


def binary_images(trial: Trial) -> str:
    """Images of exact zeros and ones, and all-black ones, can be attacked (trap 2)."""
    found = total = 0
    for threat in trial.threats:
        weight = signed_weights(1, 36, 0)[0]
        stream = torch.Generator().manual_seed(2)
        images = {
            "binary": torch.rand(6, 1, 6, 6, generator=stream).round(),
            "black": torch.zeros(1, 1, 6, 6),
            "white": torch.ones(1, 1, 6, 6),
        }
        if not isinstance(threat, Lp):  # turning what is all black changes nothing
            images = {"binary": images["binary"]}
        for name, x in images.items():
            broken = 0
            for image in x:
                # The border runs close by each image: all that it takes is to move at all.
                model = _NearBorder(weight, image, 1e-3)
                data = labelled(model, image[None]).data
                broken += int(not _robust(trial, model, threat, data).any())
            require(broken > 0, f"{threat}: 0 of {len(x)} {name} images found")
            found, total = found + broken, total + len(x)
    return f"{found} of {total} found"


def zero_gradient(trial: Trial) -> str:
    """A gradient of zero, everywhere at the start or on one sample, harms nobody (trap 4)."""
    for threat in trial.threats:
        problem = linear_problem(threat, _APART)
        flat = Plateau(problem.model, 0.01)
        data = labelled(flat, 0.5 + 0.015 * (problem.data.x - 0.5)).data
        outcome = trial.run(flat, threat, data)
        require(not any(r.error for r in outcome.records), f"{threat}: {outcome.doubts}")

        x = problem.data.x.clamp(0, 0.9)
        x[3] = 0.5
        x[3, 0, 0, 0] = 1.0
        model = Plateau(problem.model, 0.0, frozen=0.95)
        data = labelled(model, x).data
        others = [i for i in range(len(x)) if i != 3]
        together = trial.run(model, threat, data)
        alone = trial.run(model, threat, data.take(others))
        require(not any(r.error for r in together.records), f"{threat}: {together.doubts}")
        mixed = torch.tensor([together.records[i].robust for i in others])
        apart = torch.tensor([r.robust for r in alone.records])
        _require_same(apart, mixed, f"{threat}: beside a sample without gradient")
        require(bool(torch.isfinite(together.adversarials).all()), f"{threat}: NaN image")
    return "at the start; on one sample"


class _NearBorder(nn.Module):
    """Two classes whose border runs `margin` beside `image`, such that the box lets it pass."""

    def __init__(self, weight: Tensor, image: Tensor, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.image, self.margin = image.flatten(), margin

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2) logits."""
        left = self.margin - (x.flatten(1) - self.image) @ self.weight
        return torch.stack([left / 2, -left / 2], 1)


def _robust(trial: Trial, model: nn.Module, threat: Threat, data: Dataset) -> Tensor:
    outcome = trial.run(model, threat, data)
    require(not any(r.error for r in outcome.records), f"{threat}: {outcome.doubts}")
    return torch.tensor([r.robust for r in outcome.records])


def _require_same(expected: Tensor, found: Tensor, where: str) -> None:
    require(
        torch.equal(expected, found),
        f"{where}: {int(found.sum())} robust instead of {int(expected.sum())}; "
        f"samples {(expected != found).nonzero().flatten().tolist()} differ",
    )
