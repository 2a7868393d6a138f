"""Tables whose cells are images: their columns, and what is in a row."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from robustbench_lite.errors import InputError
from robustbench_lite.pixels import image_of
from robustbench_lite.sources.data.asked import told
from robustbench_lite.sources.data.folder import read_image
from robustbench_lite.sources.data.labels import labels_of

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = ("label", "labels", "class", "target", "y")
_KEPT = 2  # row groups in memory


@dataclass(frozen=True)
class Rows:
    """What a Stream is made of: called with a row, it gives the image and the label."""

    names: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...] | None
    cell: Callable[[int], object]

    def __call__(self, i: int) -> tuple[Image.Image, int]:
        """The image and the label of a row; raises InputError where it holds no image."""
        content = self.cell(i)
        if isinstance(content, Mapping):
            path = content.get("path")
            content = content.get("bytes")
            if content is None and isinstance(path, str) and Path(path).is_absolute():
                return read_image(path), self.labels[i]
        if not isinstance(content, bytes):
            raise InputError(f"image {self.names[i]} is missing; store it as bytes in its cell")
        return image_of(content, self.names[i]), self.labels[i]


def parquet_rows(root: Path, files: Sequence[Path], image: str, label: str) -> Rows:
    """The rows of parquet files that have the same columns.

    Args:
        root: the folder of the files, or the file.
        files: in order.
        image: the column of images; "" for the one that there is.
        label: the column of labels, likewise.

    Raises:
        InputError: pyarrow is missing, a file cannot be read, or has no such columns.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(
            "parquet files need pyarrow; install it with pip install 'robustbench-lite[parquet]'"
        ) from None
    groups = _Groups()
    names: list[str] = []
    values: list[object] = []
    known: tuple[str, ...] | None = None
    for file in files:
        where = f"data file {file}"
        try:
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error
        classes = _hub_classes(schema)
        pictures = [f.name for f in schema if _holds_bytes(f.type)]
        groups.column = chosen("image", image or groups.column, schema.names, pictures, where)
        rest = [name for name in schema.names if name != groups.column]
        likely = [n for n in LABELS if n in rest] or [n for n in rest if n in classes]
        label = chosen("label", label, schema.names, likely[:1] if likely else [], where)
        if file is not files[0] and classes.get(label) != known:
            raise InputError(f"{where} names other classes than {files[0]}; give files of one kind")
        known = classes.get(label)
        try:
            values += table.read(columns=[label]).column(0).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error
        inside = file.name if file == root else file.relative_to(root).as_posix()
        names += [f"{inside}:{row}" for row in range(sum(sizes))]
        groups.add(file, sizes)
    where = f"data {root}"
    labels, found = column_labels(values, names, where)
    return Rows(names, labels, known if known and found is None else found, groups)


@dataclass
class _Groups:
    """The images of many row groups, of which the last few that were asked for are kept."""

    column: str = ""
    starts: list[int] = field(default_factory=list)
    places: list[tuple[Path, int]] = field(default_factory=list)
    rows: int = 0
    kept: dict[int, pa.ChunkedArray] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def add(self, file: Path, sizes: Sequence[int]) -> None:
        """The row groups of one more file."""
        for group, size in enumerate(sizes):
            self.starts.append(self.rows)
            self.places.append((file, group))
            self.rows += size

    def __call__(self, i: int) -> object:
        number = bisect_right(self.starts, i) - 1
        with self.turn:
            if number not in self.kept:
                for old in list(self.kept)[: 1 - _KEPT or None]:
                    del self.kept[old]
                self.kept[number] = self._read(number)
            cells = self.kept[number]
        return cells[i - self.starts[number]].as_py()

    def _read(self, number: int) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file, group = self.places[number]
        try:
            return pq.ParquetFile(file).read_row_group(group, columns=[self.column]).column(0)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"data file {file} cannot be read as parquet ({reason}); write it again")


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "bytes" in (kind.field(i).name for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _hub_classes(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The names of classes that Hugging Face's datasets leave in a file, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, kind["names"]))
            for column, kind in features.items()
            if kind.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # the file is not from there


def chosen(kind: str, name: str, columns: Sequence[str], likely: Sequence[str], where: str) -> str:
    """The column of a kind.

    Raises:
        InputError: there is none of the name, or which one it is is not clear.
    """
    if name and name not in columns:
        raise InputError(f"{where} has no column {name!r}; it has {told(columns)}")
    if not name and len(likely) != 1:
        raise InputError(
            f"{where}: which of the columns {told(columns)} is the {kind} is not clear; "
            f"choose with ?{kind}=NAME"
        )
    return name or likely[0]


def column_labels(
    values: Sequence[object], names: Sequence[str], where: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """The labels of a column, and the names of classes where it holds texts.

    Raises:
        InputError: one is missing, negative, or no whole number, or there are none.
    """
    if not values:
        raise InputError(f"{where} holds no rows; give at least one image")
    if all(isinstance(value, str) for value in values):
        return labels_of([str(value) for value in values], where)
    labels = []
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            hint = "; -1 stands for none" if value == -1 else ""
            raise InputError(
                f"{where}: row {name} has label {value!r}{hint}; "
                "give texts or whole numbers from 0 in every row"
            )
        labels.append(value)
    return labels, None
