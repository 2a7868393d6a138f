"""Threats without a norm: a patch anywhere on the image, a rotation with a shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from robustbench_lite.geometry import in_box
from robustbench_lite.settings import check_fields
from robustbench_lite.threat import Access

Queries = Annotated[int, Field(ge=1)] | None

_SLACK = 1e-6


@dataclass(frozen=True)
class Patch:
    """Any colours inside one upright rectangle anywhere on the image.

    A proposal is the image itself; its size is the share of the image's pixels inside the smallest
    rectangle around everything that changed.

    Args:
        area: the largest share, above 0 and up to 1.
        access: what the attacker sees of the classifier.
        queries: forward passes allowed a sample; None for no limit.

    Raises:
        InputError: `area` is out of range, or `queries` is below 1.
    """

    area: Annotated[float, Field(gt=0, le=1)] = 0.05
    access: Access = Access.GRADIENTS
    queries: Queries = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return f"patch of {100 * self.area:g} %"

    def to_json(self) -> dict[str, Any]:
        """Area, access and queries."""
        return _named("patch", self, area=self.area)

    def origin(self, x: Tensor) -> Tensor:
        """The images themselves."""
        return x

    def render(self, x: Tensor, adv: Tensor) -> Tensor:
        """The proposals, clipped to the box."""
        return adv.clamp(0, 1)

    def size(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) float64: share of the pixels inside the rectangle around all changes."""
        changed = (adv != x).any(1)
        rows, columns = _extent(changed.any(2)), _extent(changed.any(1))
        return (rows * columns).double() / max(1, changed[:1].numel())

    def contains(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) bool: in the box, and the changes in a rectangle that is not too large."""
        return in_box(adv) & (self.size(x, adv) <= self.area * (1 + _SLACK))

    def sides(self, x: Tensor, stretch: float = 1.0) -> tuple[int, int]:
        """Height and width of a largest rectangle, `stretch` times as high as wide if that fits.

        Both are 1 or more: on an image so small that no pixel fits, nothing that is proposed is
        within the threat.
        """
        rows, columns = x.shape[2:]
        allowed = self.area * (1 + _SLACK) * rows * columns
        height = min(rows, max(1, int(math.sqrt(allowed * stretch))))
        width = min(columns, max(1, int(allowed / height)))
        return min(rows, max(1, int(allowed / width))), width


def _extent(marked: Tensor) -> Tensor:
    """(N,) from the first to the last True of each row of (N, L), 0 where there is none."""
    length = marked.shape[1]
    first = marked.long().argmax(1)
    last = length - marked.flip(1).long().argmax(1)
    return torch.where(marked.any(1), last - first, 0)


@dataclass(frozen=True)
class Spatial:
    """The image turned around its middle and shifted, black where nothing is.

    A proposal is (angle in degrees, clockwise, shift down, shift right), shifts as shares of the
    image's height and width; its size is the largest of the three, each by its limit.

    Args:
        degrees: the largest angle in either direction; 30 in Engstrom et al. 2019
            (arXiv:1712.02779, section 4).
        shift: the largest shift along each axis, as a share of the image; about 0.1 there.
        access: what the attacker sees of the classifier.
        queries: forward passes allowed a sample; None for no limit.

    Raises:
        InputError: a limit is out of range, or `queries` is below 1.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    shift: Annotated[float, Field(ge=0, le=1)] = 0.1
    access: Access = Access.GRADIENTS
    queries: Queries = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return f"turn by {self.degrees:g} degrees, shift by {100 * self.shift:g} %"

    def to_json(self) -> dict[str, Any]:
        """Degrees, shift, access and queries."""
        return _named("spatial", self, degrees=self.degrees, shift=self.shift)

    @property
    def limits(self) -> tuple[float, float, float]:
        """The largest value of each part of a proposal."""
        return (self.degrees, self.shift, self.shift)

    def origin(self, x: Tensor) -> Tensor:
        """(N, 3) zeros."""
        return x.new_zeros(len(x), 3)

    def render(self, x: Tensor, adv: Tensor) -> Tensor:
        """The images turned and shifted, by bilinear interpolation."""
        if not len(x):
            return x
        angle, down, right = torch.deg2rad(adv[:, 0]), adv[:, 1], adv[:, 2]
        tall = x.shape[2] / x.shape[3]
        cos, sin = angle.cos(), angle.sin()
        # Where each pixel comes from, in units of half the image: first the shift is undone.
        matrix = torch.stack(
            [
                torch.stack([cos, sin * tall, -2 * (cos * right + sin * tall * down)], 1),
                torch.stack([-sin / tall, cos, -2 * (cos * down - sin / tall * right)], 1),
            ],
            1,
        )
        grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
        moved = functional.grid_sample(x, grid, align_corners=False).clamp(0, 1)
        still = (adv == 0).all(1).reshape(-1, 1, 1, 1)
        return torch.where(still, x, moved)

    def size(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) float64: the largest part by its limit."""
        limits = torch.tensor(self.limits, dtype=torch.float64, device=adv.device)
        part = adv.double().abs()
        return torch.where(part == 0, 0.0, part / limits).amax(1)

    def contains(self, x: Tensor, adv: Tensor) -> Tensor:
        """(N,) bool: every part within its limit."""
        return self.size(x, adv) <= 1 + _SLACK


def _named(kind: str, threat: Patch | Spatial, **values: float) -> dict[str, Any]:
    return {
        "threat": kind,
        **values,
        "access": threat.access.name.lower(),
        "queries": threat.queries,
    }
