"""Adversarial examples as one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robustbench_lite.page.report import Example

_TILE, _GAP, _EDGE, _LINE, _BESIDE = 96, 6, 20, 18, 3
_PAPER, _INK, _PALE = (255, 255, 255), (29, 36, 43), (89, 100, 110)


def gallery_image(examples: Sequence[Example], classes: Sequence[str] | None = None) -> Image.Image:
    """Examples in a grid, each as image, magnified perturbation and adversarial; an RGB image.

    Args:
        examples: what to draw, 1 or more.
        classes: names of the classes, numbers if None.

    Raises:
        ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("a gallery needs an example")
    across = min(_BESIDE, len(examples))
    down = -(-len(examples) // across)
    width, height = 3 * _TILE + 2 * _GAP, _TILE + 3 * _LINE
    size = (across * (width + _EDGE) + _EDGE, down * (height + _EDGE) + _EDGE)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, example in enumerate(examples):
        left = _EDGE + number % across * (width + _EDGE)
        top = _EDGE + number // across * (height + _EDGE)
        for column, tile in enumerate(_tiles(example)):
            sheet.paste(tile, (left + column * (_TILE + _GAP), top))
        for line, text in enumerate(_caption(example, classes)):
            ink, font = (_PALE if line else _INK), _font(11 if line else 12)
            pen.text((left, top + _TILE + 2 + line * _LINE), _cut(text, font, width), ink, font)
    return sheet


def _caption(example: Example, classes: Sequence[str] | None) -> tuple[str, ...]:
    label, to = (
        str(number) if classes is None else classes[number]
        for number in (example.label, example.to)
    )
    return f"{label} -> {to}", example.model, f"{example.trial}, size {example.size:.3g}"


def _tiles(example: Example) -> list[Image.Image]:
    before, after = (_picture(png) for png in (example.image, example.adversarial))
    delta = np.asarray(after, dtype=np.int16) - np.asarray(before, dtype=np.int16)
    gain = 127 / max(1, int(np.abs(delta).max()))
    magnified = Image.fromarray((128 + gain * delta).astype(np.uint8))
    return [_tile(picture) for picture in (before, magnified, after)]


def _picture(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


def _tile(picture: Image.Image) -> Image.Image:
    scale = _TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (_TILE, _TILE), _PAPER)
    offset = ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2)
    square.paste(picture.resize(size, Image.Resampling.NEAREST), offset)
    return square


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened in its middle until it fits."""
    keep = len(text)
    while font.getlength(shown := _middle(text, keep)) > width:
        keep -= 1
    return shown


def _middle(text: str, keep: int) -> str:
    if keep >= len(text):
        return text
    return f"{text[: -(-keep // 2)]}...{text[len(text) - keep // 2 :]}"
