"""Streams: what is attacked some samples at a time, and datasets of other libraries."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_images import encoded
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset

from robustbench_lite import Dataset, InputError, Lp, Norm, load_attack, load_data, load_model
from robustbench_lite import stream as streams
from robustbench_lite.data import drawn
from robustbench_lite.stream import Stream
from robustbench_lite.sweep import sweep

DIGITS = load_data("digits").sample(60)
THREATS = [Lp(Norm.LINF, eps) for eps in (0.05, 0.1)]


def digits(n: int = 60) -> Stream:
    return Stream.of(TensorDataset(DIGITS.x[:n], DIGITS.y[:n]), "digits")


@pytest.mark.parametrize("attack", ["fgsm", "fmn"])
def test_a_stream_has_the_outcomes_of_its_samples_in_memory(attack, monkeypatch):
    model, plan = load_model("digits-cnn"), load_attack(attack)
    whole = sweep(model, plan, THREATS, DIGITS, exact=True)
    monkeypatch.setattr(streams, "_BYTES", 17 * 4 * 64)
    parts = [len(part) for part in digits().parts()]
    assert parts == [17, 17, 17, 9]
    ours = sweep(model, plan, THREATS, digits(), exact=True)
    assert [o.records for o in ours] == [o.records for o in whole]
    assert 0 < ours[-1].robust_accuracy < ours[0].robust_accuracy < 1
    assert [o.threat for o in ours] == [o.threat for o in whole]
    assert [o.n for o in ours] == [60, 60]
    assert ours[0].adversarials.shape == (0, 1, 8, 8)


def test_parts_are_what_is_loaded(monkeypatch):
    whole = digits().load()
    assert whole.ids == DIGITS.ids
    monkeypatch.setattr(streams, "_BYTES", 1)
    parts = list(digits(3).parts())
    assert [part.ids for part in parts] == [(i,) for i in DIGITS.ids[:3]]
    some = digits().among([DIGITS.ids[40], DIGITS.ids[7][:10]])
    assert some.ids == (DIGITS.ids[7], DIGITS.ids[40])


def test_images_that_differ_in_shape_are_told_in_any_part(monkeypatch):
    images = [Image.new("RGB", (4, 4))] * 3 + [Image.new("RGB", (5, 4))]
    data = Stream.of([(image, 0) for image in images])
    monkeypatch.setattr(streams, "_BYTES", 2 * 4 * 48)
    with pytest.raises(InputError, match=r"image 0 is 3 x 4 x 4, but 3 is 3 x 4 x 5; .*size=224"):
        list(data.parts())
    mixed = Stream.of([(Image.new("RGB", (4, 4)), 0), (Image.new("L", (4, 4)), 0)])
    with pytest.raises(InputError, match=r"but 1 is 1 x 4 x 4; .*\?channels=3 behind the data"):
        mixed.load()
    assert mixed.seen_as(3, 0, 1.0, "bilinear").load().x.shape == (2, 3, 4, 4)


PROGRAM = r"""
import json, re, sys
from pathlib import Path
from torch import nn
from robustbench_lite import Lp, Norm, load_attack
from robustbench_lite import stream
from robustbench_lite.registry import open_data
from robustbench_lite.sweep import sweep



def highest():
    # Resident memory in MiB; what getrusage tells can be the parent's.
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


stream._BYTES = 6 * 2**20
data = open_data(f"folder:{sys.argv[1]}?size=112&channels=3")
net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(147, 10))
attack, threats = load_attack("noise", steps=1), [Lp(Norm.LINF, 0.01)]
sweep(net, attack, threats, data.take(range(84)), batch_size=16)
before = highest()
(outcome,) = sweep(net, attack, threats, data, batch_size=16)
print(json.dumps([len(data), outcome.n, highest() - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it in /proc")
def test_memory_does_not_grow_with_the_images(tmp_path):
    images = tmp_path / "images"
    for i in range(500):
        path = images / str(i % 10) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.new("RGB", (8, 8), (i % 256, i // 256, 0))))
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # so that what is resident is in use
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, images],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | given_back,
    )
    n, judged, grown = json.loads(done.stdout)
    assert n == judged == 500  # 72 MiB as floats
    assert grown < 30


def pairs(images, labels, **more):
    """A map-style dataset with some attributes."""
    items = list(zip(images, labels, strict=True))
    return type("Pairs", (list,), more)(items)


IMAGES = [np.full((4, 5, 3), i, dtype=np.uint8) for i in range(3)]


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray,
        torch.from_numpy,
        lambda a: a,
        lambda a: torch.from_numpy(a).permute(2, 0, 1) / 255,
        lambda a: (a / 255).astype(np.float64),
    ],
)
@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, lambda i: torch.tensor([i])])
def test_any_dataset_of_pairs(image, label):
    rows = [np.repeat(a, 2, axis=0) for a in IMAGES]
    data = Stream.of(pairs(map(image, rows), map(label, [2, 0, 1])), "mine").load()
    assert data.name == "mine"
    assert data.y.tolist() == [2, 0, 1]
    assert data.x.shape == (3, 3, 8, 5)
    assert (data.x[:, 1, 2, 3] * 255).round().tolist() == [0, 1, 2]


@pytest.mark.parametrize("targets", [[2, 0, 2], torch.tensor([2, 0, 2]), np.array([2, 0, 2])])
def test_targets_are_labels_without_reading(targets):
    source = pairs(IMAGES, [2, 0, 2], targets=targets, classes=["a", "b", "c"])
    data = Stream.of(source)
    assert data.known() == [2, 0, 2]
    assert data.classes == ("a", "b", "c")
    assert data.sample(2, stratified=True).known() == [2, 2] or len(data) == 3
    assert Stream.of(Subset(source, [0, 1])).known() is None
    changed = pairs(IMAGES, [1, 1, 1], targets=targets, target_transform=lambda label: 1)
    assert Stream.of(changed).load().y.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (-1, "item 0: label -1 is not one whole number of 0 or more"),
        (0.0, "label 0.0 is not"),
        (True, "label True is not"),
        ("cat", "label 'cat' is not"),
        (None, "label None is not"),
        ([0, 1], r"label \[0, 1\] is not"),
        (torch.tensor([0, 1]), "is not one whole number"),
        (2**40, "is not one whole number"),
    ],
)
def test_labels_that_are_none(label, told):
    with pytest.raises(InputError, match=told):
        Stream.of([(IMAGES[0], label)]).load()
    with pytest.raises(InputError, match=told.replace("item 0", r"\.targets")):
        Stream.of(pairs(IMAGES[:1], [0], targets=[label]))


def test_what_is_no_dataset():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match="Endless has no length; give a map-style dataset"):
        Stream.of(Endless())
    with pytest.raises(InputError, match=r"item 0 is dict, not \(image, label\); wrap"):
        Stream.of([{"image": IMAGES[0], "label": 0}]).load()
    with pytest.raises(InputError, match="is empty; give at least one image"):
        Stream.of([]).load()
    with pytest.raises(InputError, match=r"has 3 items, but 1 \.targets"):
        Stream.of(pairs(IMAGES, [0, 0, 0], targets=[0]))
    with pytest.raises(InputError, match=r"has label 1, but \.targets says 0; make them agree"):
        Stream.of(pairs(IMAGES, [0, 1, 0], targets=[0, 0, 0])).load()
    with pytest.raises(InputError, match="image 1: pixels span 0 to 255, not 0 to 1; divide"):
        Stream.of([(IMAGES[0], 0), (np.array([[0.0, 255.0]]), 1)]).load()
    with pytest.raises(InputError, match="tells labels only with the images; leave out --strat"):
        Stream.of([(IMAGES[0], 0)]).sample(1, stratified=True)


def test_items_are_asked_for_once_and_one_after_the_other():
    class Alone:
        def __init__(self):
            self.busy, self.asked = False, Counter()

        def __len__(self):
            return 40

        def __getitem__(self, i):
            assert not self.busy
            self.busy = True
            self.asked[i] += 1
            time.sleep(0.001)  # which lets other threads go on
            self.busy = False
            return IMAGES[i % 3], 0

    source = Alone()
    assert len(Stream.of(source).load()) == 40
    assert max(source.asked[i] for i in range(1, 40)) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_drawing_in_proportion(labels, n, seed, shuffled):
    names = [f"{i}.png" for i in range(len(labels))]
    chosen = drawn(names, n, seed, labels)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n, len(labels))
    counts, all_of_them = Counter(labels[i] for i in chosen), Counter(labels)
    for label, count in all_of_them.items():
        assert abs(counts[label] - len(chosen) * count / len(labels)) < 1
    order = list(range(len(labels)))
    shuffled.shuffle(order)
    other = drawn([names[i] for i in order], n, seed, [labels[i] for i in order])
    assert {names[order[i]] for i in other} == {names[i] for i in chosen}


def test_streams_and_datasets_draw_in_proportion():
    y = [0] * 30 + [1] * 20 + [2] * 10
    data = Dataset(DIGITS.x, torch.tensor(y))
    assert Counter(data.sample(6, 1, stratified=True).y.tolist()) == {0: 3, 1: 2, 2: 1}
    stream = replace(digits(), labels=y)
    drawn_so = stream.sample(6, 1, stratified=True)
    assert Counter(drawn_so.known()) == {0: 3, 1: 2, 2: 1}
    assert drawn_so.rows != stream.sample(6, 2, stratified=True).rows
