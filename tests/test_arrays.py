"""Tensors and arrays of any layout as images; labels in numpy files."""

import numpy as np
import pytest
import torch
from odd_images import pixels

from robustbench_lite import InputError, load_data
from robustbench_lite.pixels import ANY, View, tensor_of

GREY, COLOUR = View(channels=1), View(channels=3)
ARRAYS = pixels(5, 6, 3)


@pytest.mark.parametrize(
    "image",
    [
        ARRAYS,
        torch.from_numpy(ARRAYS),
        torch.from_numpy(ARRAYS).permute(2, 0, 1),
        ARRAYS.transpose(2, 0, 1),
        ARRAYS / 255,
        (ARRAYS / 255).astype(">f4"),
        torch.from_numpy(ARRAYS).permute(2, 0, 1).double() / 255,
        np.concatenate([ARRAYS, ARRAYS[:, :, :1]], axis=2),
        torch.nn.Parameter(torch.from_numpy(ARRAYS).permute(2, 0, 1) / 255),
    ],
)
def test_arrays_of_any_layout(image):
    x = tensor_of(image, COLOUR, "3")
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert np.allclose(x, ARRAYS.transpose(2, 0, 1) / 255, atol=1e-7)


def test_arrays_and_channels():
    grey = tensor_of(ARRAYS[:, :, 0], COLOUR, "3")
    assert torch.equal(grey, tensor_of(ARRAYS[:, :, 0], ANY, "3").expand(3, -1, -1))
    luma = tensor_of(ARRAYS / 255, GREY, "3")
    assert np.allclose(luma[0], ARRAYS / 255 @ [0.299, 0.587, 0.114], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (torch.full((3, 2, 2), 1.5), "pixels span 1.5 to 1.5, not 0 to 1; divide by 255"),
        (torch.full((3, 2, 2), -0.5), "undo the normalisation"),
        (torch.full((3, 2, 2), torch.nan), "pixels span nan to nan"),
        (torch.full((3, 2, 2), 3), r"type torch.int64; give uint8 or floats in \[0, 1\]"),
        (np.full((2, 2), 1e300), "pixels span inf to inf"),
        (np.ones((2, 2), dtype=bool), "type bool"),
        (np.array(["a"]), "type <U1"),
        (None, "type object"),
        (torch.rand(2, 2, 2, 2), r"shape \(2, 2, 2, 2\); give \(channels, rows, columns\)"),
        (torch.rand(3, 0, 2), r"shape \(3, 0, 2\)"),
        (torch.rand(5, 6, 7), "5 channels, but 3 are wanted"),
    ],
)
def test_what_is_no_image(image, told):
    with pytest.raises(InputError, match=told):
        tensor_of(image, COLOUR, "3")


def test_labels_as_texts_in_a_numpy_file(tmp_path):
    x = pixels(3, 4, 4)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["dog", "cat", "dog"]))
    data = load_data(f"npz:{tmp_path}/a.npz")
    assert (data.y.tolist(), data.classes) == ([1, 0, 1], ("cat", "dog"))
    np.savez(tmp_path / "b.npz", x=x, y=np.array(["10", "2", "0"]))
    assert load_data(f"npz:{tmp_path}/b.npz").y.tolist() == [10, 2, 0]
    np.savez(tmp_path / "c.npz", x=x, y=np.array(["-1", "2", "0"]))
    with pytest.raises(InputError, match="has the negative label -1; labels start at 0"):
        load_data(f"npz:{tmp_path}/c.npz")
