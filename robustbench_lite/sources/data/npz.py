"""Data in numpy files."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import numpy as np

from robustbench_lite.data import Dataset, Split, from_arrays
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import no_settings
from robustbench_lite.sources.data.labels import labels_of

_AS_IT_IS = 2**30  # bytes that are never too many
_MOST_PACKED = 100  # times that images can be packed


def npz(split: Split, argument: str, settings: Mapping[str, str]) -> Dataset:
    """A numpy file: keys x_train, y_train, x_test, y_test, or x and y for either split.

    x is uint8 or floats in [0, 1], (N, rows, columns, channels) or (N, rows, columns). y holds
    whole numbers, or names of classes, which are numbered in the order of their text. A key classes
    may name the classes of numbers.
    """
    no_settings("npz", settings)
    if not argument:
        raise InputError("data 'npz' needs a file; write npz:PATH")
    path = Path(argument)
    name = f"npz:{path.name}"
    if not path.is_file():
        raise InputError(f"data file {path} does not exist; check the path behind npz:")
    try:
        _check_size(path)
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise InputError(f"data file {path} holds one array; save x and y with numpy.savez")
        with opened as file:
            for x_key, y_key in ((f"x_{split}", f"y_{split}"), ("x", "y")):
                if x_key in file and y_key in file:
                    x, y = file[x_key], file[y_key]
                    break
            else:
                raise InputError(
                    f"data file {path} has the keys {', '.join(file.files) or 'none'}; "
                    f"it needs x and y, or x_{split} and y_{split}"
                )
            names = tuple(str(c) for c in file["classes"]) if "classes" in file else None
    except InputError:
        raise
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged file
        raise InputError(
            f"data file {path} cannot be read as npz ({error}); "
            "save x and y again as arrays of numbers with numpy.savez"
        ) from error
    if y.dtype.kind == "U" and y.ndim == 1 and len(y):
        labels, found = labels_of(y.tolist(), f"data file {path}")
        y, names = np.array(labels), names if found is None else found
    data = from_arrays(x, y, name, path)
    return Dataset(data.x, data.y, name, names)


def _check_size(path: Path) -> None:
    """A small file that unpacks to gigabytes is no data."""
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        whole = sum(member.file_size for member in archive.infolist())
    if whole > max(_AS_IT_IS, _MOST_PACKED * path.stat().st_size):
        raise InputError(
            f"data file {path} would unpack to {whole / 2**30:.0f} GiB, far more than images do; "
            "save it again with numpy.savez"
        )
