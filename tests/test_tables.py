"""csv:FILE, parquet:FILE and hf:NAME: tables that name or hold images."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_images import encoded
from PIL import Image

from robustbench_lite import InputError, Split, load_data
from robustbench_lite.registry import open_data

IMAGES = [Image.new("L", (2, 2), 10 * i) for i in range(8)]
FILES = [encoded(image) for image in IMAGES]


def shades(data) -> list[int]:
    return (data.load().x[:, 0, 0, 0] * 255).round().int().tolist()


def refused(spec: str, split: Split = Split.TEST) -> str:
    with pytest.raises(InputError) as refusal:
        open_data(spec, split)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in here").mkdir()
    for i, content in enumerate(FILES):
        (tmp_path / "in here" / f"{i}.png").write_bytes(content)
    return tmp_path


def table(place: Path, *lines: str) -> str:
    (place / "a.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return f"csv:{place}/a.csv"


@pytest.mark.parametrize("head", ["path,label", "Image , CLASS", "filename,target", ""])
def test_paths_and_labels(place, head):
    spec = table(place, *[head] * bool(head), "in here/3.png,dog", "", 'in here/1.png,"cat, big"')
    data = open_data(spec)
    assert data.name == "csv:a.csv"
    assert list(data.names) == ["in here/3.png", "in here/1.png"]
    assert data.labels == [1, 0]
    assert data.classes == ("cat, big", "dog")
    assert shades(data) == [30, 10]


def test_columns_are_chosen(place):
    lines = ("id,path,where,label,kind", "0,?,in here/2.png,7,x", "1,?,in here/0.png,12,y")
    spec = table(place, *lines)
    data = open_data(f"{spec}?path=where")
    assert (data.labels, data.classes) == ([7, 12], None)
    assert open_data(f"{spec}?path=where&label=kind").classes == ("x", "y")
    assert "no column 'colour'; its first line names id, path, where" in refused(
        f"{spec}?path=colour"
    )
    assert "path and label is not clear; choose with ?path=NAME" in refused(
        table(place, "a,b,c", "1,2,3")
    )


def test_a_path_elsewhere_is_the_users_own(place):
    inner = place / "tables"
    inner.mkdir()
    absolute = place / "in here" / "5.png"
    spec = table(inner, "../in here/4.png,0", f"{absolute},1")
    assert shades(open_data(spec)) == [40, 50]


def test_all_bad_lines_are_told(place):
    spec = table(
        place,
        "path,label",
        "in here/0.png,cat",
        "in here/9.png,cat",
        ",cat",
        "in here/1.png,",
        "in here/1.png",
        "in here/0.png,dog",
        "in here/" + "x" * 300 + ",cat",
        "in here,cat",
    )
    said = refused(spec)
    for told in (
        "line 3: there is no file 'in here/9.png', ",
        "line 4 lacks the path, ",
        "line 5 lacks the label, ",
        "line 6 has 1 columns, not 2, ",
        "line 7 gives 'in here/0.png' another label than line 2 and 2 more; correct these lines",
    ):
        assert told in said


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; write a line path,label"),
        (b"path,label\n", "names no image"),
        (b'path,label\n"a,b\n', "cannot be read as csv"),
        ("path,label\nKäfer.png,1\n".encode("latin-1"), "save it as UTF-8 text with commas"),
        (b"in here/0.png,-1\nin here/1.png,0\n", "has the negative label -1; labels start at 0"),
    ],
)
def test_what_is_no_table(place, content, told):
    (place / "a.csv").write_bytes(content)
    assert told in refused(f"csv:{place}/a.csv")


def test_a_table_of_excels(place):
    content = "\ufeffpath,label\r\nin here/6.png,2\r\n"
    (place / "a.csv").write_bytes(content.encode())
    data = open_data(f"csv:{place}/a.csv")
    assert (list(data.names), data.labels) == (["in here/6.png"], [2])


def test_missing_files_are_told(tmp_path):
    assert "b.csv does not exist; check the path behind csv:" in refused(f"csv:{tmp_path}/b.csv")
    assert "do not exist; check the path behind parquet:" in refused(f"parquet:{tmp_path}/b")
    assert "holds no .parquet file" in refused(f"parquet:{tmp_path}")
    for spec in ("csv:", "parquet:", "hf:"):
        assert spec[:-1] in refused(spec)


def parquet(path: Path, labels, images=None, kind="bytes", **options) -> str:
    cells = FILES[: len(labels)] if images is None else images
    if kind == "struct":
        cells = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"id": range(len(labels)), "x": cells, "label": labels}), path, **options
    )
    return f"parquet:{path}"


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_images_in_a_column(tmp_path, kind):
    data = open_data(parquet(tmp_path / "a.parquet", [5, 3, 4, 3, 9], kind=kind, row_group_size=2))
    assert data.name == "parquet:a.parquet"
    assert list(data.names[:2]) == ["a.parquet:0", "a.parquet:1"]
    assert (data.labels, data.classes) == ([5, 3, 4, 3, 9], None)
    assert shades(data) == [0, 10, 20, 30, 40]
    assert shades(data.take([4, 0])) == [40, 0]


def test_texts_are_classes(tmp_path):
    data = open_data(parquet(tmp_path / "a.parquet", pa.array(["b", "a", "b"]).dictionary_encode()))
    assert (data.labels, data.classes) == ([1, 0, 1], ("a", "b"))


def test_classes_as_hugging_face_leaves_them(tmp_path):
    features = {"label": {"names": ["cat", "dog", "cow"], "_type": "ClassLabel"}}
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    made = pa.table({"image": FILES[:2], "label": [2, 0]}).replace_schema_metadata(told)
    pq.write_table(made, tmp_path / "a.parquet")
    data = open_data(f"parquet:{tmp_path}/a.parquet")
    assert (data.labels, data.classes) == ([2, 0], ("cat", "dog", "cow"))


def test_one_row_group_at_a_time(tmp_path):
    """What another row group holds is not touched: here its bytes are gone."""
    path = tmp_path / "a.parquet"
    noise = [np.random.default_rng(i).bytes(4000) for i in range(2)]
    spec = parquet(path, [0, 1, 2, 3], FILES[:2] + noise, row_group_size=2, compression="none")
    content = path.read_bytes()
    start = content.index(noise[0]) - 30
    path.write_bytes(content[:start] + bytes(8000) + content[start + 8000 :])
    data = open_data(spec)
    assert data.labels == [0, 1, 2, 3]
    assert shades(data.take([0, 1])) == [0, 10]
    with pytest.raises(InputError, match=r"a\.parquet"):
        data.load()


def test_few_row_groups_are_kept(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 300, 300), dtype=np.uint8)
    cells = [encoded(Image.fromarray(image)) for image in noise]
    before = pa.total_allocated_bytes()
    data = open_data(parquet(tmp_path / "a.parquet", range(12), cells, row_group_size=1))
    assert len(data.load()) == 12
    assert pa.total_allocated_bytes() - before < 4 * len(cells[0])


def test_folders_of_files(tmp_path):
    parquet(tmp_path / "test-00001-of-00002.parquet", [3], FILES[3:4])
    parquet(tmp_path / "test-00000-of-00002.parquet", [1, 2], FILES[1:3])
    parquet(tmp_path / "train-00000-of-00001.parquet", [0])
    data = open_data(f"parquet:{tmp_path}")
    assert (data.labels, shades(data)) == ([1, 2, 3], [10, 20, 30])
    assert data.names[2] == "test-00001-of-00002.parquet:0"
    assert open_data(f"parquet:{tmp_path}", Split.TRAIN).labels == [0]
    parquet(tmp_path / "more" / "b.parquet", [7])
    parquet(tmp_path / "more" / "a.parquet", [6])
    assert open_data(f"parquet:{tmp_path / 'more'}").labels == [6, 7]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"a": [b"1"], "b": [b"2"], "label": [0]}, "which of the columns a, b, label is the image"),
        ({"a": ["x"], "label": [0]}, "is the image is not clear; choose with ?image=NAME"),
        ({"a": [b"1"], "b": [0]}, "is the label is not clear; choose with ?label=NAME"),
        ({"a": [b"1"], "label": [-1]}, "a.parquet:0 has label -1; -1 stands for none; give"),
        ({"a": [b"1"], "label": [None]}, "a.parquet:0 has label None"),
        ({"a": [b"1"], "label": [0.5]}, "has label 0.5"),
        ({"a": [b"1"], "label": [True]}, "has label True"),
        ({"a": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "holds no rows"),
    ],
)
def test_what_is_no_table_of_images(tmp_path, columns, told):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert told in refused(f"parquet:{tmp_path}/a.parquet")


def test_cells_without_an_image(tmp_path):
    cells = pa.array([None, b"text"], pa.binary())
    data = open_data(parquet(tmp_path / "a.parquet", [0, 1], cells))
    with pytest.raises(InputError, match=r"image a\.parquet:0 is missing; store it as bytes"):
        data.take([0]).load()
    with pytest.raises(InputError, match=r"image a\.parquet:1 is in no image format"):
        data.take([1]).load()
    assert "no column 'y'; it has id, x, label" in refused(f"parquet:{tmp_path}/a.parquet?image=y")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    assert "cannot be read as parquet" in refused(f"parquet:{tmp_path}/b.parquet")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Hugging Face's datasets, with its files in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def made(hub, first: int, labels: list[int]):
    features = hub.Features(
        {"img": hub.Image(), "kind": hub.ClassLabel(names=["cat", "dog"]), "id": hub.Value("int64")}
    )
    cells = {"img": IMAGES[first : first + len(labels)], "kind": labels, "id": labels}
    return hub.Dataset.from_dict(cells, features=features)


def test_a_saved_data_set(hub, tmp_path):
    made(hub, 0, [1, 0, 1]).save_to_disk(tmp_path / "one")
    data = open_data(f"hf:{tmp_path}/one")
    assert (data.labels, data.classes) == ([1, 0, 1], ("cat", "dog"))
    assert shades(data) == [0, 10, 20]
    assert "have no splits; leave out #test" in refused(f"hf:{tmp_path}/one#test")
    parts = {"train": made(hub, 0, [0]), "validation": made(hub, 1, [1]), "odd": made(hub, 2, [0])}
    hub.DatasetDict(parts).save_to_disk(tmp_path / "parts")
    assert shades(open_data(f"hf:{tmp_path}/parts")) == [10]
    assert shades(open_data(f"hf:{tmp_path}/parts", Split.TRAIN)) == [0]
    assert shades(open_data(f"hf:{tmp_path}/parts#odd?label=id&channels=3")) == [20]
    assert "have no split test2; choose with #SPLIT behind the name: train" in refused(
        f"hf:{tmp_path}/parts#test2"
    )


def test_files_that_the_library_reads(hub, tmp_path):
    for part, first in (("train", 0), ("test", 2)):
        made(hub, first, [0, 1]).to_parquet(tmp_path / "set" / f"{part}-00000-of-00001.parquet")
    data = open_data(f"hf:{tmp_path}/set")
    assert (data.labels, data.classes, shades(data)) == ([0, 1], ("cat", "dog"), [20, 30])
    assert load_data(f"parquet:{tmp_path}/set").ids == data.load().ids


def test_what_the_library_cannot_load(hub, tmp_path):
    assert "cannot be loaded" in refused("hf:nobody/nothing@v1#test")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "cannot be loaded" in refused(f"hf:{tmp_path}/set")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "a.parquet").touch()
    assert "is a file; write parquet:" in refused(f"hf:{tmp_path}/a.parquet")


@pytest.mark.parametrize(
    ("module", "spec", "extra"),
    [("pyarrow.parquet", "parquet:{}/a.parquet", "parquet"), ("datasets", "hf:x", "hf")],
)
def test_missing_packages_are_told(module, spec, extra, monkeypatch, tmp_path):
    parquet(tmp_path / "a.parquet", [0])
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install 'robustbench-lite[{extra}]'" in refused(spec.format(tmp_path))
