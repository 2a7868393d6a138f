"""Images as people have them: turned, transparent, deep, damaged; each as the bytes of a file."""

import io

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def colours(rows: int = 4, columns: int = 6, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels(rows, columns, 3, seed=seed))


def turned(orientation: int) -> bytes:
    """A PNG whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(colours(), exif=exif)


def deep() -> np.ndarray:
    """Grey values of 16 bits: black, white, and between."""
    return np.array([[0, 65535, 257], [12345, 30000, 255]], dtype=np.uint16)


def palette() -> Image.Image:
    """A palette of three colours, of which the second is transparent."""
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 51])
    image.putdata([0, 1, 2])
    return image


def frames() -> bytes:
    """An animation: black, then white."""
    first, second = (Image.new("L", (4, 4), value) for value in (0, 255))
    return encoded(first, "gif", save_all=True, append_images=[second])


def bomb(side: int = 14_000) -> bytes:
    """A few kilobytes that say they are an image of `side` x `side` pixels."""
    header = b"P5 %d %d 255\n" % (side, side)
    return header + bytes(64)


WHOLE = encoded(colours(32, 32), "jpeg")
DAMAGED = {
    "empty": b"",
    "cut": WHOLE[: len(WHOLE) // 2],
    "text": b"not an image at all\n",
    "bomb": bomb(),
    "half a bomb": bomb(10_000),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n",
    "header": b"\x89PNG\r\n\x1a\n",
    "broken png": encoded(colours())[:60] + bytes(40),
}
