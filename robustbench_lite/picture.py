"""An explanation as a picture: a row a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustbench_lite.explanation import Explanation
from robustbench_lite.threat import Lp

_TILE, _GAP, _EDGE, _LABEL, _LINE = 128, 10, 20, 150, 20
_PAPER, _INK, _PALE = (255, 255, 255), (32, 32, 32), (110, 110, 110)
# From dark to light with rising luminance, so that it also reads in grey.
_HEAT = torch.tensor(
    [[0.02, 0.02, 0.12], [0.35, 0.07, 0.43], [0.73, 0.21, 0.33], [0.97, 0.55, 0.15], [1, 1, 0.7]]
)


def draw(explanation: Explanation, title: str, classes: Sequence[str] | None = None) -> Image.Image:
    """The picture, an RGB image.

    Image, adversarial example, perturbation magnified to the full range, and where the classifier
    looks on each of the two.

    Args:
        explanation: what to draw.
        title: the line above.
        classes: names of the classes, numbers if None.
    """
    heads = ("image", "adversarial", "perturbation", "looks at, before", "looks at, after")
    rows = len(explanation.which)
    top = _EDGE + 3 * _LINE
    width = 2 * _EDGE + _LABEL + len(heads) * (_TILE + _GAP) - _GAP
    width = max(width, 2 * _EDGE + round(_font(14).getlength(title)))
    height = top + rows * (_TILE + _GAP) + _LINE + _EDGE
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_EDGE, _EDGE), title, _INK, _font(14))
    for column, head in enumerate(heads):
        pen.text((_column(column), top - _LINE), head, _PALE, _font(12))
    for row in range(rows):
        y = top + row * (_TILE + _GAP)
        for line, text in enumerate(_told(explanation, row, classes)):
            pen.text((_EDGE, y + line * _LINE), text, _PALE if line else _INK, _font(13))
        for column, tile in enumerate(_tiles(explanation, row)):
            page.paste(tile, (_column(column), y))
    pen.text((_EDGE, height - _EDGE - 12), f"looks at: {explanation.how}", _PALE, _font(12))
    return page


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _column(number: int) -> int:
    return _EDGE + _LABEL + number * (_TILE + _GAP)


def _told(explanation: Explanation, row: int, classes: Sequence[str] | None) -> list[str]:
    record = explanation.outcome.records[explanation.which[row]]
    before, after = (int(labels[row]) for labels in (explanation.before, explanation.after))
    names = [str(label) if classes is None else classes[label] for label in (before, after)]
    if not record.correct:
        label = record.label
        return [names[0], f"wrong: {label if classes is None else classes[label]}"]
    if record.robust:
        return [names[0], "held"]
    threat = explanation.outcome.threat
    size = f"{threat.norm} {record.size:.3g}" if isinstance(threat, Lp) else ""
    return [names[0], f"becomes {names[1]}", size, f"magnified {_gain(explanation, row):.3g} x"]


def _gain(explanation: Explanation, row: int) -> float:
    delta = explanation.adversarials[row] - explanation.x[row]
    return 0.5 / max(float(delta.abs().max()), 1e-12)


def _tiles(explanation: Explanation, row: int) -> list[Image.Image]:
    x, adv = explanation.x[row], explanation.adversarials[row]
    delta = adv - x
    shown = 0.5 + delta * _gain(explanation, row) if bool(delta.any()) else torch.full_like(x, 0.5)
    looks = zip((explanation.seen_before[row], explanation.seen_after[row]), (x, adv), strict=True)
    return [
        _tile(x),
        _tile(adv),
        _tile(shown),
        *(_tile(_over(seen, image)) for seen, image in looks),
    ]


def _over(seen: Tensor, image: Tensor) -> Tensor:
    """A map (H, W) in colour over the faint image (C, H, W)."""
    place = seen * (len(_HEAT) - 1)
    low = place.long().clamp(max=len(_HEAT) - 2)
    part = (place - low)[..., None]
    colour = (1 - part) * _HEAT[low] + part * _HEAT[low + 1]
    return 0.75 * colour.permute(2, 0, 1) + 0.25 * image.mean(0, keepdim=True)


def _tile(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [0, 1] as a square picture; of odd channels their mean."""
    if len(image) not in (1, 3):
        image = image.mean(0, keepdim=True)
    levels = (image.expand(3, -1, -1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(levels.numpy()), "RGB")
    rows, columns = image.shape[1:]
    scale = _TILE / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    enlarged = picture.resize(size, Image.Resampling.NEAREST)
    square = Image.new("RGB", (_TILE, _TILE), _PAPER)
    square.paste(enlarged, ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2))
    return square
