"""Images in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from robustbench_lite.data import Split
from robustbench_lite.errors import InputError
from robustbench_lite.pixels import image_of
from robustbench_lite.sources.data.asked import VIEW, checked_settings, told, view_of
from robustbench_lite.sources.data.labels import are_numbers
from robustbench_lite.stream import Stream

# Torchvision's, and three that it does not know.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".gif", ".jfif", ".avif"),
)
_MEASURED = ("test", "val", "valid", "validation")
_PARTS = {"train", *_MEASURED}


def folder(split: Split, argument: str, settings: Mapping[str, str]) -> Stream:
    """A folder with a folder of images for each class, as torchvision's ImageFolder has it.

    Images may lie at any depth; hidden files and what is no image by its name are left out. The
    samples come in ImageFolder's order. Where the folders are called train, test or val, the split
    chooses, and classes are numbered as in train. Images are read when they are needed.

    Classes are numbered in the order of their names. Folders that are all called by whole numbers
    (0, 1, ..., 10) are the labels themselves: ImageFolder would take 10 for label 2, as it sorts
    texts. For a model that was trained so, write ?order=text.

    Other settings: size (rows and columns), channels (1 or 3), crop (share of the shorter side that
    is kept) and interpolation (bilinear or bicubic), all by default as the model says;
    empty=keep gives a class without images its place among the labels.
    """
    spec = f"folder:{argument}"
    checked_settings(spec, settings, (*VIEW, "order", "empty"))
    view = view_of(spec, settings)
    order, empty = settings.get("order", ""), settings.get("empty", "")
    if order not in ("", "text") or empty not in ("", "keep"):
        wrong = f"order={order}" if order not in ("", "text") else f"empty={empty}"
        raise InputError(f"data {spec!r}: {wrong} is wrong; write order=text or empty=keep")
    root = Path(argument)
    if not argument or not root.is_dir():
        raise InputError(f"data folder {root} does not exist; check the path behind folder:")
    root, classes = _part(root, split)
    label_of, names = _numbered(root, classes, by_number=order != "text")
    paths: list[str] = []
    labels: list[int] = []
    bare = []
    for name in classes:
        found = list(_images(root / name)) if (root / name).is_dir() else []
        if not found and (root / name).is_dir():
            bare.append(name)
        paths += found
        labels += [label_of[name]] * len(found)
    if bare and empty != "keep":
        raise InputError(
            f"data folder {root}: no image in the class folder {told(bare)}; put images there, "
            "move away what is no class, or write ?empty=keep"
        )
    if not paths:
        raise InputError(f"data folder {root} holds no images; give one with class folders")
    start = len(os.fspath(root / "_")) - 1
    return Stream(
        name=f"folder:{Path(argument).resolve().name}",
        names=[shown(path[start:]) for path in paths],
        read=_Reader(paths, labels),
        labels=labels,
        classes=names,
        view=view,
    )


@dataclass(frozen=True)
class _Reader:
    paths: list[str]
    labels: list[int]

    def __call__(self, i: int) -> tuple[Image.Image, int]:
        return read_image(self.paths[i]), self.labels[i]


def read_image(path: str) -> Image.Image:
    """The image in a file.

    Raises:
        InputError: the file cannot be read, or holds no image.
    """
    name = shown(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"image {name} cannot be read ({error.strerror}); restore it") from error
    return image_of(content, name)


def is_file(path: Path) -> bool:
    """Is there such a file? A name that cannot be one is none."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def shown(path: str) -> str:
    """A path as text with slashes; bytes that are no text are escaped."""
    return os.fsencode(path.replace(os.sep, "/")).decode("utf-8", "backslashreplace")


def _part(root: Path, split: Split) -> tuple[Path, list[str]]:
    """The folder that holds the class folders of the split, and their names."""
    names = _folders(root)
    parts = _PARTS.intersection(names)
    measured = [name for name in _MEASURED if name in parts]
    # A single folder of such a name among others may be a class: trains are.
    if not parts or not (parts == set(names) or ("train" in parts and measured)):
        return root, _checked(root, names)
    if split is Split.TRAIN:
        if "train" not in parts:
            raise InputError(f"data folder {root} has no folder train; give data to learn from")
        return root / "train", _checked(root / "train", _folders(root / "train"))
    # Of some data sets the test images come without labels.
    labelled = [name for name in measured if _folders(root / name)]
    if not labelled:
        raise InputError(
            f"data folder {root} has no folder test or val with class folders in it; "
            "give data to measure on, or the folder train itself"
        )
    chosen = root / labelled[0]
    classes = _folders(chosen)
    if "train" in parts:
        trained = _folders(root / "train")
        strange = sorted(set(classes) - set(trained))
        if trained and strange:
            raise InputError(
                f"data folder {chosen} has the class {told(strange)}, which is not in train; "
                f"make both alike, or give {chosen} itself"
            )
        classes = trained or classes
    return chosen, _checked(chosen, classes)


def _checked(root: Path, classes: list[str]) -> list[str]:
    if not classes:
        raise InputError(
            f"data folder {root} has no class folders; "
            "sort the images into a folder for each class, or list them in a csv:FILE"
        )
    return classes


def _numbered(
    root: Path, classes: list[str], *, by_number: bool
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each class folder, and the names of the classes."""
    if not by_number or not are_numbers(classes):
        return {name: i for i, name in enumerate(classes)}, tuple(map(shown, classes))
    label_of = {name: int(name) for name in classes}
    name_of = {label: name for name, label in label_of.items()}
    if len(name_of) < len(classes):
        twice = next(name for name in classes if name_of[int(name)] != name)
        raise InputError(
            f"data folder {root}: the class folders {twice} and {name_of[int(twice)]} are the same "
            "number; rename one"
        )
    return label_of, tuple(name_of.get(i, str(i)) for i in range(max(name_of) + 1))


def _entries(path: str) -> list[os.DirEntry[str]]:
    """What lies in a folder and is not hidden."""
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]
    except OSError as error:
        raise InputError(
            f"data folder {shown(path)} cannot be read ({error.strerror}); make it readable"
        ) from error


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(os.fspath(root)) if entry.is_dir())


def _readable(entry: os.DirEntry[str]) -> bool:
    """A broken link counts, to be told when it is read; a pipe does not, which would never end."""
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def _images(root: Path) -> Iterator[str]:
    """The images in a folder and below, in the order of torchvision's ImageFolder."""
    found: list[tuple[str, list[str]]] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(os.fspath(root), frozenset())]
    while waiting:
        path, above = waiting.pop()
        stat = Path(path).stat()
        place = (stat.st_dev, stat.st_ino)
        if place in above:  # a link to a folder that it lies in
            continue
        names = []
        for entry in _entries(path):
            if entry.is_dir():
                waiting.append((entry.path, above | {place}))
            elif entry.name.lower().endswith(SUFFIXES) and _readable(entry):
                names.append(entry.name)
        found.append((path, sorted(names)))
    for path, names in sorted(found):
        for name in names:
            yield os.path.join(path, name)  # noqa: PTH118  # a million Paths are slow
