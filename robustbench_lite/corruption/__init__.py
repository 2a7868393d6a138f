"""The 15 common corruptions at 5 severities (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from robustbench_lite.corruption import blur, digital, noise, weather
from robustbench_lite.errors import InputError
from robustbench_lite.rng import key_of
from robustbench_lite.settings import check_fields
from robustbench_lite.threat import Access

SEVERITIES = 5

_Image = NDArray[np.float64]
_Change = Callable[[_Image, int, np.random.Generator], _Image]

KINDS: dict[str, _Change] = {
    "gaussian-noise": noise.gaussian,
    "shot-noise": noise.shot,
    "impulse-noise": noise.impulse,
    "defocus-blur": blur.defocus,
    "glass-blur": blur.glass,
    "motion-blur": blur.motion,
    "zoom-blur": blur.zoom,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic": digital.elastic,
    "pixelate": digital.pixelate,
    "jpeg": digital.jpeg,
}


@dataclass(frozen=True)
class Corruption:
    """One of the common corruptions, of a severity up to `severity`.

    A proposal is (number of the kind in KINDS, severity from 0 for none to 5, number of a random
    draw); its size is the severity. The strengths are those of CIFAR-10-C, and its lengths in
    pixels grow with the image's smaller side (pixelate takes away a pixel of a side at least). The
    random numbers of a change follow from the image and the proposal. Frost and clouds are
    computed; the original frost is six photographs.

    Args:
        severity: the largest, 1 to 5.
        access: what the attacker sees of the classifier.
        queries: forward passes allowed a sample; None for no limit.

    Raises:
        InputError: `severity` is out of range, or `queries` is below 1.
    """

    severity: Annotated[int, Field(ge=1, le=SEVERITIES)] = SEVERITIES
    access: Access = Access.GRADIENTS
    queries: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return f"corruption up to severity {self.severity}"

    def to_json(self) -> dict[str, Any]:
        """Severity, access and queries."""
        return {
            "threat": "corruption",
            "severity": self.severity,
            "access": self.access.name.lower(),
            "queries": self.queries,
        }

    def origin(self, x: Tensor) -> Tensor:
        """(N, 3) zeros."""
        return x.new_zeros(len(x), 3)

    def render(self, x: Tensor, adv: Tensor) -> Tensor:
        """The images, each with its corruption.

        Raises:
            InputError: a proposal names no corruption that exists.
        """
        numbers = adv.round()
        for strange in numbers[~_exists(numbers)][:1].tolist():
            raise InputError(
                f"a corruption is a kind from 0 to {len(KINDS) - 1}, a severity from 0 to "
                f"{SEVERITIES} and a draw from 0, not {strange}"
            )
        changed = [
            one if number[1] == 0 else _changed(one, *number)
            for one, number in zip(x, numbers.long().tolist(), strict=True)
        ]
        return torch.stack(changed) if changed else x

    def size(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) float64: the severity."""
        return adv[:, 1].double().abs()

    def contains(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) bool: whole numbers of a kind that exists and of a severity that is allowed."""
        return _exists(adv) & (adv == adv.round()).all(1) & (adv[:, 1] <= self.severity)


def _exists(adv: Tensor) -> Tensor:
    """(N,) bool: a kind, a severity and a draw that there are."""
    counted = (adv >= 0).all(1) & torch.isfinite(adv).all(1)
    return counted & (adv[:, 0] < len(KINDS)) & (adv[:, 1] <= SEVERITIES)


def _changed(image: Tensor, kind: int, severity: int, draw: int) -> Tensor:
    pixels = image.detach().cpu().numpy()
    name = list(KINDS)[kind]
    seed = key_of("corruption", name, severity, draw, pixels.tobytes().hex())
    stream = np.random.default_rng(seed % 2**63)
    changed = KINDS[name](pixels.transpose(1, 2, 0).astype(np.float64), severity, stream)
    return torch.from_numpy(changed.clip(0, 1).transpose(2, 0, 1).copy()).to(image)
