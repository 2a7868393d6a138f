"""Whose class is whose: by name, by order, or as --class-map says; and --indices."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_lite import Dataset, InputError
from robustbench_lite.class_names import matched, picked
from robustbench_lite.stream import Stream


def dataset(labels, classes=None) -> Dataset:
    x = torch.arange(len(labels)).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 10
    return Dataset(x, torch.tensor(labels), "d", classes)


def stream(labels, classes=None, known=True) -> Stream:
    return Stream(
        "d",
        [f"{i}.png" for i in range(len(labels))],
        lambda i: (Image.new("L", (2, 2), i), labels[i]),
        labels if known else None,
        classes,
    )


def labels_of(data) -> list[int]:
    return (data if isinstance(data, Dataset) else data.load()).y.tolist()


both = pytest.mark.parametrize("kind", [dataset, stream])


@both
@pytest.mark.parametrize(
    ("classes", "names", "labels"),
    [
        (("cat", "dog"), ("dog", "cat"), [1, 0]),
        (("cat", "dog"), ("ant", "dog", "bee", "cat"), [3, 1]),
        (("Great_White shark", "DOG"), ("dog", "great white-shark"), [1, 0]),
        (("Tinca tinca", "goldfish"), ("tench, Tinca tinca", "Goldfish, Carassius"), [0, 1]),
        (("tench, Tinca", "goldfish"), ("goldfish", "tench"), [1, 0]),
        (("crane", "cat"), ("crane, bird", "crane", "cat"), [1, 2]),  # the same name goes first
        (("a", "b"), ("x", "y"), [0, 1]),  # as many, and none is known: the order
        (("0", "1"), ("x", "y", "z"), [0, 1]),  # called by their labels
        (("0", "1"), ("1", "10", "0"), [2, 0]),  # of a model that sorts texts
        (("a", "a2"), ("a", "a2"), [0, 1]),
        (("crane", "crane", "Cat"), ("crane", "crane", "cat"), [0, 1]),  # the same order throughout
        (("a", "b"), None, [0, 1]),
        (None, ("b", "a"), [0, 1]),
    ],
)
def test_classes_go_by_name(kind, classes, names, labels):
    data = matched(kind([0, 1, 0], classes), names, len(names or ()), None)
    assert labels_of(data) == [labels[0], labels[1], labels[0]]
    if names is not None and classes is not None and classes[0] not in ("a", "0"):
        assert data.classes == names


@both
@pytest.mark.parametrize(
    ("classes", "names", "count", "told"),
    [
        (("cat", "dog"), ("cat", "ant"), 2, "the model has no class called 'dog'; rename"),
        (("cat", "dgo"), ("cat", "dog"), 2, r"called 'dgo' \(did you mean 'dog'\?\); ren"),
        (("a", "b"), ("x", "y", "z"), 3, "no class called 'a', 'b'; .* with --class-map"),
        (("crane", "cat"), ("crane", "Crane", "cat"), 3, None),
        (("Crane", "cat"), ("crane", "CRANE", "cat"), 3, "'Crane' may be 'crane', 'CRANE' of the"),
        (("cat", "Cat"), ("cat", "x"), 2, "classes 'cat' and 'Cat' are both 'cat' of the model"),
        (("cat", "dog"), None, 10, "has 2 classes .cat, dog., but the model has 10 without names"),
    ],
)
def test_classes_that_cannot_be_told_apart(kind, classes, names, count, told):
    if told is None:
        assert labels_of(matched(kind([0, 1], classes), names, count, None)) == [0, 2]
        return
    with pytest.raises(InputError, match=told):
        matched(kind([0, 1], classes), names, count, None)


def test_classes_without_samples_do_not_matter():
    data = matched(stream([0, 2], ("cat", "unknown", "dog")), ("dog", "cat"), 2, None)
    assert labels_of(data) == [1, 0]


def test_labels_beyond_the_model_are_told_before_anything_is_read():
    with pytest.raises(InputError, match=r"label 7, but the model knows 3 classes \(0 to 2\)"):
        matched(stream([0, 7]), None, 3, None)


def test_labels_that_are_known_with_the_images_only():
    data = matched(stream([1, 0], ("cat", "dog"), known=False), ("dog", "cat"), 2, None)
    assert labels_of(data) == [0, 1]


MAPS = [
    ('{"cat": "Bee", "dog": 0}', [2, 0]),
    ('{"0": 1, "1": "2"}', [1, 2]),
    ("cat,bee\ndog,ant\n", [2, 0]),
    ("class,model\ncat,2\n\n dog , 1\n", [2, 1]),
]


@both
@pytest.mark.parametrize(("text", "labels"), MAPS)
def test_a_class_map(kind, text, labels, tmp_path):
    file = tmp_path / "map"
    file.write_text(text)
    data = matched(kind([0, 1, 1], ("cat", "dog")), ("ant", "bug", "bee"), 3, file)
    assert labels_of(data) == [labels[0], labels[1], labels[1]]
    assert data.classes == ("ant", "bug", "bee")


@both
def test_what_a_class_map_does_not_name_is_left_out(kind, tmp_path):
    (tmp_path / "map").write_text('{"dog": 5}')
    data = matched(kind([0, 1, 0, 1], ("cat", "dog")), None, 0, tmp_path / "map")
    assert len(data) == 2
    assert labels_of(data) == [5, 5]
    (tmp_path / "map").write_text('{"7": 1}')
    assert labels_of(matched(kind([3, 7]), None, 2, tmp_path / "map")) == [1]
    with pytest.raises(InputError, match="names no class that data 'd' has samples of"):
        matched(kind([3, 4]), None, 2, tmp_path / "map")


def test_an_unnamed_label_that_is_known_with_its_image_only(tmp_path):
    (tmp_path / "map").write_text('{"dog": 1}')
    data = matched(stream([1, 0], ("cat", "dog"), known=False), None, 2, tmp_path / "map")
    with pytest.raises(InputError, match=r"1\.png has label 0, .* name it, too, in --class-map"):
        data.load()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"cat": 0, "cat": 1}', "names class 'cat' twice"),
        ('{"cat": 0, "0": 1}', "names class '0' twice"),
        ('{"cta": 0}', "'cta' is no class of data 'd'; it has cat"),
        ('{"2": 0}', "'2' is no class of data 'd'; it has cat, dog"),
        ('{"cat": "bgu"}', "'bgu' is no class of the model; did you mean bug"),
        ('{"cat": 3}', "3 is no label of the model; it has 0 to 2"),
        ('{"cat": -1}', "-1 is no label"),
        ('{"cat": "3"}', "3 is no label"),
        ('{"cat": 1.0}', "1.0 is no label"),
        ('{"cat": true}', "True is no label"),
        ('{"cat": null}', "None is no label"),
        ('{"cat": {"a": 1}}', "is no label"),
        ('{"cat": 0', "is no JSON object"),
        ("{}", "is empty; name the model's class of each class"),
        ("", "is empty"),
        ("cat", "'cat' is not two columns; give a JSON object, or a CSV"),
        ("cat,1,2", "is not two columns"),
        ("cat,", "is not two columns"),
        ("[1]", "is not two columns"),
    ],
)
def test_what_is_no_class_map(text, told, tmp_path):
    (tmp_path / "map").write_text(text)
    with pytest.raises(InputError, match=told) as refusal:
        matched(dataset([0, 1], ("cat", "dog")), ("ant", "bug", "bee"), 3, tmp_path / "map")
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "map").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "map", tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .* give a text file"):
            matched(dataset([0]), None, 2, path)
        with pytest.raises(InputError, match=r"cannot be read .* give a text file"):
            picked(dataset([0]), path)


@both
@pytest.mark.parametrize("text", ["3\n0\n\n# two\n2 # it\n", "[3, 0, 2]", "\ufeff3\r\n0\r\n2"])
def test_samples_are_picked_in_the_order_of_the_file(kind, text, tmp_path):
    (tmp_path / "a").write_text(text, "utf-8")
    assert labels_of(picked(kind([5, 6, 7, 8]), tmp_path / "a")) == [8, 5, 7]


def test_samples_are_picked_by_an_array(tmp_path):
    np.save(tmp_path / "a.npy", np.array([2, 1], dtype=np.uint8))
    assert labels_of(picked(stream([5, 6, 7]), tmp_path / "a.npy")) == [7, 6]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "names no sample; give a number a line"),
        ("# 1\n", "names no sample"),
        ("[]", "names no sample"),
        ("0\n3\n", "there is no sample 3; data 'd' has 0 to 2"),
        ("0\n-1\n", "line 2 is '-1', no whole number from 0"),
        ("0\n\none\n", "line 3 is 'one'"),
        ("1.0\n", "line 1 is '1.0'"),
        ("1\n1\n", "names sample 1 twice"),
        ("[-1]", "there is no sample -1"),
        ("[true]", "entry 0 is 'True'"),
        ('["1"]', "entry 0 is '1'"),
        ("[1", "is no JSON list"),
        (np.array([0.0]), "not one row of whole numbers"),
        (np.array([[0]]), "not one row of whole numbers"),
        (np.array([True]), "not one row of whole numbers"),
        (np.array([{}]), "cannot be read as npy"),
        (np.array([5]), "there is no sample 5"),
    ],
)
def test_what_picks_no_samples(content, told, tmp_path):
    path = tmp_path / ("a.txt" if isinstance(content, str) else "a.npy")
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError, match=told) as refusal:
        picked(dataset([5, 6, 7]), path)
    assert "\n" not in str(refusal.value)


def test_a_map_of_many_classes(tmp_path):
    names = tuple(f"class {i}" for i in range(1000))
    (tmp_path / "map").write_text(json.dumps({str(i): names[999 - i] for i in range(1000)}))
    data = matched(stream(list(range(1000))), names, 1000, tmp_path / "map")
    assert data.known() == list(range(999, -1, -1))
