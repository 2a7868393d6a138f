"""Data sets of Hugging Face's: of the hub, and on this disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_lite.data import Split
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.asked import told
from robustbench_lite.sources.data.columns import LABELS, Rows, chosen, column_labels

if TYPE_CHECKING:
    from datasets import Dataset as HubDataset

_ORDER = {Split.TRAIN: ("train",), Split.TEST: ("test", "validation", "valid", "val")}


def hub_dataset(
    name: str, revision: str, part: str, split: Split, settings: Mapping[str, str]
) -> Rows:
    """The rows of one split of a data set of Hugging Face's.

    Args:
        name: on the hub, or a folder.
        revision: a commit, tag or branch of the hub; "" for the newest.
        part: the split by its name there; "" for the one that fits `split`.
        split: what the data are for.
        settings: image and label name columns, config one of several data sets.

    Raises:
        InputError: datasets is missing, or there are no such data.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "data 'hf' needs datasets; install it with pip install 'robustbench-lite[hf]'"
        ) from None
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise InputError("data 'hf' needs datasets 4 or newer, which runs no code; upgrade it")
    try:
        data = _loaded(name, revision, part, split, settings.get("config"))
    except InputError:
        raise
    except Exception as error:  # the library has very many, those of the network included
        reason = " ".join(str(error).split())
        raise InputError(
            f"data 'hf:{name}' cannot be loaded ({reason}); check the name, the revision and the "
            "network"
        ) from error
    where = f"data 'hf:{name}'"
    features = data.features
    pictures = [n for n, kind in features.items() if isinstance(kind, datasets.Image)]
    if not pictures:
        binary = {datasets.Value("binary"), datasets.Value("large_binary")}
        pictures = [n for n, kind in features.items() if kind in binary]
    image = chosen("image", settings.get("image", ""), list(features), pictures, where)
    named = {n: k for n, k in features.items() if isinstance(k, datasets.ClassLabel)}
    likely = [n for n in LABELS if n in features][:1] or list(named)
    label = chosen("label", settings.get("label", ""), list(features), likely, where)
    if isinstance(features[image], datasets.Image):
        data = data.cast_column(image, datasets.Image(decode=False))
    names = [f"{name}:{i}" for i in range(len(data))]
    labels, found = column_labels(list(data[label]), names, where)
    classes = tuple(named[label].names) if label in named else found
    turn = threading.Lock()
    pictured = data.select_columns([image])

    def cell(i: int) -> object:
        with turn:
            return pictured[i][image]

    return Rows(names, labels, classes, cell)


def _loaded(name: str, revision: str, part: str, split: Split, config: str | None) -> HubDataset:
    import datasets

    path = Path(name)
    saved = path.is_dir() and any(
        (path / file).is_file() for file in ("dataset_dict.json", "state.json")
    )
    if saved:
        whole = datasets.load_from_disk(name)
        if isinstance(whole, datasets.DatasetDict):
            return whole[_part_of(name, list(whole), part, split)]
        if part:
            raise InputError(f"data 'hf:{name}' have no splits; leave out #{part}")
        return whole
    if not path.is_dir() and path.exists():
        raise InputError(f"data 'hf:{name}' is a file; write parquet:{name} or csv:{name}")
    source: dict[str, Any] = {"revision": revision or None}
    parts = datasets.get_dataset_split_names(name, config, **source)
    chosen = _part_of(name, parts, part, split)
    loaded = datasets.load_dataset(name, config, split=chosen, **source)
    assert isinstance(loaded, datasets.Dataset)
    return loaded


def _part_of(name: str, parts: Sequence[str], wanted: str, split: Split) -> str:
    fitting = [wanted] if wanted else _ORDER[split]
    for part in fitting:
        if part in parts:
            return part
    raise InputError(
        f"data 'hf:{name}' have no split {' or '.join(fitting)}; choose with #SPLIT behind the "
        f"name: {told(parts)}"
    )
