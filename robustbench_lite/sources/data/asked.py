"""What is asked for behind the question mark of a data spec."""

from collections.abc import Iterable, Mapping

from robustbench_lite.errors import InputError, unknown
from robustbench_lite.pixels import View

VIEW = ("size", "channels", "crop", "interpolation")
_LARGEST = 4096  # rows and columns: one image of that size takes 192 MiB


def no_settings(name: str, settings: Mapping[str, str]) -> None:
    """Raise InputError if there is a setting."""
    if settings:
        key = next(iter(settings))
        raise InputError(f"data {name!r} takes no setting {key!r}; leave out what follows the ?")


def checked_settings(spec: str, settings: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise InputError for a setting that is not `known`."""
    names = tuple(known)
    for key in settings:
        if key not in names:
            raise unknown(f"setting of data {spec!r}", key, names)


def view_of(spec: str, settings: Mapping[str, str]) -> View:
    """How the images are brought into one shape: size, channels, crop and interpolation.

    Raises:
        InputError: one of them has a value that does not exist.
    """
    size = settings.get("size", "")
    if size and not (size.isascii() and size.isdecimal() and 0 < int(size[:9]) <= _LARGEST):
        raise _wrong(spec, "size", size, f"a number of rows and columns, 1 to {_LARGEST}")
    channels = settings.get("channels", "")
    if channels not in ("", "1", "3"):
        raise _wrong(spec, "channels", channels, "1 (grey) or 3 (colours)")
    interpolation = settings.get("interpolation", "")
    if interpolation not in ("", "bilinear", "bicubic"):
        raise _wrong(spec, "interpolation", interpolation, "bilinear or bicubic")
    crop = settings.get("crop", "")
    try:
        share = float(crop or 0)
    except ValueError:
        share = -1.0
    # Less would resize an image to many times what is looked at.
    if crop and not 0.1 <= share <= 1:
        raise _wrong(spec, "crop", crop, "the share of the shorter side to keep, 0.1 to 1")
    return View(int(channels or 0), int(size or 0), share, interpolation)


def _wrong(spec: str, key: str, value: str, wanted: str) -> InputError:
    return InputError(f"data {spec!r}: {key}={value} is wrong; give {wanted}")


def told(things: Iterable[object], most: int = 5) -> str:
    """The first few things, and how many more there are."""
    texts = [str(thing) for thing in things]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")
