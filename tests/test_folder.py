"""folder:PATH: a folder a class."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_images import encoded
from PIL import Image
from torchvision.datasets import ImageFolder

from robustbench_lite import InputError, Split, load_data
from robustbench_lite.registry import open_data


def shade(value: int) -> bytes:
    return encoded(Image.new("L", (2, 2), value))


def laid_out(root: Path, *paths: str) -> Path:
    """Grey images, each 10 lighter than the one before."""
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(shade(10 * number))
    return root


def opened(root: Path, settings: str = "", split: Split = Split.TEST):
    return open_data(f"folder:{root}{settings}", split)


def refused(root: Path, settings: str = "", split: Split = Split.TEST) -> str:
    with pytest.raises(InputError) as refusal:
        opened(root, settings, split)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_names_labels_and_classes(tmp_path):
    root = laid_out(tmp_path / "set", "dog/b.png", "cat/z.PNG", "cat/deep/a.png", "ant/1 2.png")
    data = opened(root)
    assert data.name == "folder:set"
    assert list(data.names) == ["ant/1 2.png", "cat/z.PNG", "cat/deep/a.png", "dog/b.png"]
    assert data.labels == [0, 1, 1, 2]
    assert data.classes == ("ant", "cat", "dog")
    whole = data.load()
    assert (whole.x[:, 0, 0, 0] * 255).round().tolist() == [30, 10, 20, 0]
    assert whole.y.tolist() == [0, 1, 1, 2]
    assert whole.classes == data.classes


def test_samples_come_as_torchvision_has_them(tmp_path):
    names = ("b/x.png", "b/x/y.png", "b/x-1/y.png", "b/x2.png", "a/9.png", "a/10.jpg", "a/B.png")
    deep = [f"b/{name}/1.png" for name in ("p", "c", "c/d", "c-d", "z", "z/a", "k", "A")]
    root = laid_out(tmp_path, *names, *deep, "10/a.png", "9/a.png")
    theirs = ImageFolder(root)
    data = opened(root)
    assert [str(root / name) for name in data.names] == [path for path, _ in theirs.samples]
    assert data.labels == theirs.targets
    assert list(data.classes) == theirs.classes


def test_what_is_no_image_or_hidden_is_left_out(tmp_path):
    root = laid_out(tmp_path, "cat/a.png", "dog/a.png")
    strange = ("__MACOSX/cat/a.png", ".ipynb_checkpoints/a.png", "cat/.a.png", "cat/.x/a.png")
    laid_out(root, *strange, "cat/.ipynb_checkpoints/a.png", "cat/__MACOSX/a.png", "a.png")
    for name in ("cat/Thumbs.db", "cat/a.txt", "labels.csv", "cat/a.png.bak"):
        (root / name).write_text("?")
    (root / "cat" / "folder.png").mkdir()
    os.mkfifo(root / "cat" / "pipe.png")
    data = opened(root)
    assert list(data.names) == ["cat/a.png", "dog/a.png"]
    assert data.classes == ("cat", "dog")


def test_names_in_any_script(tmp_path):
    root = laid_out(tmp_path / "Bilder für alle", "Käfer/ein Bild.png", "猫/写真 1.png")
    data = opened(root)
    assert list(data.names) == ["Käfer/ein Bild.png", "猫/写真 1.png"]
    assert data.classes == ("Käfer", "猫")
    raw = os.fsencode(root) + b"/K\xe4fer"
    os.mkdir(raw)  # noqa: PTH102  # no text
    Path(os.fsdecode(raw + b"/\xff.png")).write_bytes(shade(7))
    data = opened(root)
    assert r"K\xe4fer/\xff.png" in data.names
    assert len(data.sample(2).load()) == 2


def test_folders_called_by_numbers_are_the_labels(tmp_path):
    root = laid_out(tmp_path, "10/a.png", "2/a.png", "0/a.png")
    data = opened(root)
    assert dict(zip(data.names, data.labels, strict=True)) == {
        "0/a.png": 0,
        "10/a.png": 10,
        "2/a.png": 2,
    }
    assert data.classes == tuple(map(str, range(11)))
    as_text = opened(root, "?order=text")
    assert dict(zip(as_text.names, as_text.labels, strict=True)) == {
        "0/a.png": 0,
        "10/a.png": 1,
        "2/a.png": 2,
    }
    assert as_text.classes == ("0", "10", "2")
    laid_out(root, "cat/a.png")
    assert opened(root).classes == ("0", "10", "2", "cat")


def test_numbers_with_zeros_in_front(tmp_path):
    root = laid_out(tmp_path, "007/a.png", "001/a.png")
    assert opened(root).labels == [1, 7]
    laid_out(root, "7/a.png")
    assert "class folders 007 and 7 are the same number; rename one" in refused(root)
    dates = laid_out(tmp_path / "dates", "20240101/a.png", "20231231/a.png")
    assert opened(dates).labels == [0, 1]


def test_the_split_chooses(tmp_path):
    root = laid_out(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/2.png")
    data = opened(root)
    assert list(data.names) == ["c/2.png"]
    assert data.labels == [2]  # as in train
    assert data.classes == ("a", "b", "c")
    assert opened(root, split=Split.TRAIN).labels == [0, 1, 2]
    laid_out(root, "test/unlabelled.png")
    assert list(opened(root).names) == ["c/2.png"]
    laid_out(root, "test/a/9.png")
    assert list(opened(root).names) == ["a/9.png"]
    laid_out(root, "test/d/9.png")
    assert "has the class d, which is not in train" in refused(root)


def test_a_class_may_be_called_train(tmp_path):
    root = laid_out(tmp_path, "bus/1.png", "train/1.png")
    assert opened(root).classes == ("bus", "train")


def test_one_part_only(tmp_path):
    learnt = laid_out(tmp_path / "learnt", "train/a/1.png")
    assert "no folder test or val" in refused(learnt)
    measured = laid_out(tmp_path / "measured", "test/a/1.png")
    assert "has no folder train; give data to learn from" in refused(measured, split=Split.TRAIN)
    assert opened(measured).labels == [0]


def test_what_is_no_such_folder(tmp_path):
    assert "missing does not exist; check the path behind folder:" in refused(tmp_path / "missing")
    assert "does not exist" in refused(Path(__file__))
    with pytest.raises(InputError, match="check the path behind folder:"):
        open_data("folder:")
    flat = laid_out(tmp_path / "flat", "a.png")
    assert "has no class folders; sort the images" in refused(flat)
    bare = laid_out(tmp_path / "bare", "a/1.png")
    (bare / "b").mkdir()
    (bare / "c").mkdir()
    (bare / "c" / "notes.txt").touch()
    assert "no image in the class folder b, c; put images there" in refused(bare)
    kept = opened(bare, "?empty=keep")
    assert (kept.labels, kept.classes) == ([0], ("a", "b", "c"))
    (bare / "a" / "1.png").unlink()
    assert "holds no images" in refused(bare, "?empty=keep")


def test_links(tmp_path):
    root = laid_out(tmp_path / "set", "a/1.png", "b/1.png")
    outside = laid_out(tmp_path / "outside", "2.png")
    (root / "a" / "again").symlink_to(root / "a")
    (root / "b" / "all").symlink_to(root)
    (root / "b" / "linked").symlink_to(outside)
    data = opened(root)
    assert {"a/1.png", "b/1.png", "b/linked/2.png"} <= set(data.names)
    assert len(data) < 12
    (root / "a" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"lost\.png cannot be read \(No such file"):
        opened(root).load()


def test_settings(tmp_path):
    root = laid_out(tmp_path, "a/1.png", "a/2.png")
    (root / "a" / "3.png").write_bytes(encoded(Image.new("RGB", (6, 3), (255, 0, 0))))
    with pytest.raises(InputError, match=r"a/1.png is 1 x 2 x 2, but a/3.png is 3 x 3 x 6"):
        load_data(f"folder:{root}")
    data = load_data(f"folder:{root}?size=4&channels=3&crop=0.8&interpolation=bicubic")
    assert data.x.shape == (3, 3, 4, 4)
    assert torch.allclose(data.x[2].amax((1, 2)), torch.tensor([1.0, 0, 0]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("size=0", "size=0 is wrong; give a number of rows and columns, 1 to 4096"),
        ("size=99999999999", "1 to 4096"),
        ("size=x", "1 to 4096"),
        ("channels=2", "channels=2 is wrong; give 1 (grey) or 3 (colours)"),
        ("crop=2", "crop=2 is wrong; give the share of the shorter side to keep, 0.1 to 1"),
        ("crop=nan", "0.1 to 1"),
        ("interpolation=cubic", "bilinear or bicubic"),
        ("order=number", "order=number is wrong; write order=text or empty=keep"),
        ("colour=1", "no setting of data"),
    ],
)
def test_settings_that_do_not_exist(settings, told, tmp_path):
    assert told in refused(laid_out(tmp_path, "a/1.png"), f"?{settings}")


def test_nothing_is_decoded_before_it_is_needed(tmp_path):
    root = laid_out(tmp_path, "a/1.png", "a/2.png")
    (root / "a" / "2.png").write_text("no image")
    data = opened(root)
    assert data.take([0]).load().y.tolist() == [0]
    with pytest.raises(InputError, match=r"a/2\.png is in no image format"):
        data.load()


def test_a_folder_is_what_its_arrays_are(tmp_path):
    """The same pixels have the same ids, and so the same outcomes."""
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8)
    for i, image in enumerate(x):
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        (tmp_path / str(i % 2) / f"{i}.png").write_bytes(encoded(Image.fromarray(image)))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(4) % 2)
    assert set(load_data(f"folder:{tmp_path}").ids) == set(load_data(f"npz:{tmp_path}/a.npz").ids)
