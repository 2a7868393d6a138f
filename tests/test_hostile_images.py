"""A corpus of odd and damaged images: each comes out right, or is refused with its name."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odd_images import DAMAGED, WHOLE, colours, deep, encoded, frames, palette, pixels, turned
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from robustbench_lite import InputError, load_data
from robustbench_lite.class_names import matched, picked
from robustbench_lite.pixels import ANY, View, image_of, tensor_of
from robustbench_lite.registry import open_data

GREY, COLOUR = View(channels=1), View(channels=3)


def seen(content: bytes, view: View = ANY) -> np.ndarray:
    """(C, H, W) in steps of 1/255."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tensor_of(image_of(content, "a.png"), view, "a.png").double().numpy() * 255


def flat(content: bytes, view: View = ANY) -> list[list[float]]:
    return seen(content, view).reshape(len(seen(content, view)), -1).round(3).tolist()


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_photographs_are_turned_upright(orientation, upright):
    wanted = upright(np.asarray(colours())).transpose(2, 0, 1)
    assert np.allclose(seen(turned(orientation)), wanted, atol=1e-4)


def test_16_bits_are_not_cut_off_at_8():
    for kind in ("png", "tiff"):
        content = encoded(Image.fromarray(deep()), kind)
        wanted = deep() / 257
        assert np.allclose(seen(content), wanted[None], atol=1e-4)
        assert np.allclose(seen(content, COLOUR), np.stack([wanted] * 3), atol=1e-4)
    half = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert np.allclose(seen(encoded(half), View(size=2)), 32768 / 257, atol=1e-3)


def test_floats_are_taken_as_they_are_within_the_box():
    values = np.array([[0.0, 1.0, 0.2]], dtype=np.float32)
    assert np.allclose(seen(encoded(Image.fromarray(values), "tiff")), values * 255, atol=1e-4)
    content = encoded(Image.fromarray(values * 255), "tiff")
    with pytest.raises(InputError, match=r"a.png has floats outside 0 to 1; save it again"):
        seen(content)
    large = encoded(Image.fromarray(np.array([[70000]], dtype=np.int32)), "tiff")
    with pytest.raises(InputError, match="pixels of 32 bits; save it again with 8 or 16"):
        seen(large)


def test_what_is_transparent_is_shown_in_its_colour():
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 51]
    for options in ({}, {"transparency": 1}, {"transparency": bytes([255, 0, 128])}):
        assert flat(encoded(palette(), **options)) == [red, green, blue]
    rgba = Image.fromarray(np.array([[[10, 20, 30, 0]]], dtype=np.uint8))
    assert flat(encoded(rgba)) == [[10], [20], [30]]
    faint = Image.fromarray(np.array([[[40, 0], [50, 255]]], dtype=np.uint8), "LA")
    assert flat(encoded(faint)) == [[40, 50]]
    assert flat(encoded(faint), COLOUR) == [[40, 50]] * 3
    keyed = encoded(
        Image.fromarray(pixels(1, 2, 3)), transparency=tuple(pixels(1, 2, 3)[0, 0].tolist())
    )
    assert np.allclose(seen(keyed), pixels(1, 2, 3).transpose(2, 0, 1), atol=1e-4)


def test_print_colours_and_others():
    ink = Image.new("CMYK", (1, 1), (255, 0, 0, 51))
    assert flat(encoded(ink, "tiff")) == [[0], [204], [204]]
    for mode in ("YCbCr", "HSV", "LAB"):
        image = colours().convert(mode)
        wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / 255
        assert np.allclose(tensor_of(image, COLOUR, "a"), wanted)


def test_grey_and_colour():
    assert flat(encoded(Image.fromarray(np.array([[True, False]])))) == [[255, 0]]
    grey = Image.fromarray(pixels(2, 3))
    assert np.allclose(seen(encoded(grey), COLOUR), np.stack([pixels(2, 3)] * 3), atol=1e-4)
    # As torchvision's Grayscale has it.
    wanted = np.asarray(functional.rgb_to_grayscale(colours()))
    assert np.allclose(seen(encoded(colours()), GREY), wanted[None], atol=1e-4)


def test_the_first_frame_of_an_animation():
    assert not seen(frames()).any()


def test_webp_and_bmp_are_read():
    for kind, options in {"webp": {"lossless": True}, "bmp": {}, "ppm": {}}.items():
        wanted = np.asarray(colours()).transpose(2, 0, 1)
        assert np.allclose(seen(encoded(colours(), kind, **options)), wanted, atol=1e-4)


def test_one_pixel_fills_the_view():
    image = encoded(Image.new("RGB", (1, 1), (10, 20, 30)))
    assert np.allclose(seen(image, View(size=5)), np.array([10, 20, 30])[:, None, None], atol=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 60),
    st.sampled_from([1.0, 0.95, 0.875, 0.9, 0.5]),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([1, 3]),
)
def test_resizing_is_torchvisions_to_the_pixel(shape, size, crop, interpolation, channels):
    image = Image.fromarray(pixels(*shape, 3))
    resized = transforms.Resize(
        round(size / crop), transforms.InterpolationMode(interpolation), antialias=True
    )
    steps = [resized, transforms.CenterCrop(size), transforms.ToTensor()]
    grey = [transforms.Grayscale()] if channels == 1 else []
    wanted = transforms.Compose([*grey, *steps])(image)
    ours = tensor_of(image, View(channels, size, crop, interpolation), "a")
    elongated = max(shape) > 16 * min(shape)
    assert torch.equal(ours, wanted) or (elongated and (ours - wanted).abs().max() < 1.5 / 255)
    if size == 1:  # where torch's interpolate repeats the first row
        return
    values = torch.rand(channels, *shape)
    other = transforms.Compose([resized, transforms.CenterCrop(size)])(values).clamp(0, 1)
    same = tensor_of(values, View(channels, size, crop, interpolation), "a")
    untouched = shape == (size, size)
    assert torch.allclose(same, values if untouched else other, atol=1e-5)


def test_a_long_thin_image_takes_no_more_memory_than_its_middle():
    thin = np.zeros((1, 40_000, 3), dtype=np.uint8)
    thin[0, 20_000:] = 255
    x = tensor_of(Image.fromarray(thin), View(3, 224, 0.875), "thin")  # else 256 x 10,240,000
    assert x.shape == (3, 224, 224)
    assert float(x[:, :, 0].max()) < 0.5 < float(x[:, :, -1].min())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("empty", "is empty; remove or repair it"),
        ("cut", "cannot be read (image file is truncated"),
        ("text", "is in no image format that is known here; remove or repair it"),
        ("bomb", "has more than 89478485 pixels"),
        ("half a bomb", "has more than 89478485 pixels"),
        ("postscript", "is in no image format that is known here"),
        ("header", "is in no image format that is known here"),
        ("broken png", "cannot be read ("),
    ],
)
def test_damaged_images_are_named(name, told, forked_refused, tmp_path):
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    (folder / "good.png").write_bytes(WHOLE)
    (folder / "bad.png").write_bytes(DAMAGED[name])
    data = open_data(f"folder:{tmp_path / 'images'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as refusal:
            data.load()
    assert str(refusal.value).startswith(f"image {folder / 'bad.png'} ")
    assert told in str(refusal.value)
    if name in ("cut", "half a bomb"):
        model = ("--model", "digits-cnn", "--data", "folder:images?empty=keep")
        (tmp_path / "map.json").write_text('{"cat": 0}')
        said = forked_refused("attack", *model, "--class-map", "map.json", "--attack", "fgsm")
        assert "image images/cat/bad.png" in said
        assert told in said


def complaint(do, *arguments) -> str:
    """Whatever a file holds, nothing but InputError comes out."""
    try:
        do(*arguments)
    except InputError as error:
        return str(error)
    return ""


def tried(do, *arguments) -> None:
    assert "\n" not in complaint(do, *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(WHOLE)))
@example(b"GIF89a", 0)
@example(b"II*\0", 0)
def test_any_bytes_as_an_image(noise, at):
    warnings.simplefilter("ignore")
    for content in (noise, WHOLE[:at] + noise + WHOLE[at + len(noise) :], turned(6)[:at] + noise):
        tried(lambda c: tensor_of(image_of(c, "a"), View(3, 8), "a"), content)


def stored() -> dict[str, bytes]:
    npz = io.BytesIO()
    np.savez(npz, x=pixels(2, 4, 4), y=np.arange(2))
    npy = io.BytesIO()
    np.save(npy, np.arange(2))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = io.BytesIO()
    pq.write_table(pa.table({"image": [WHOLE, WHOLE], "label": [0, 1]}), table)
    return {
        "a.csv": b"path,label\na.png,cat\n",
        "a.npz": npz.getvalue(),
        "a.parquet": table.getvalue(),
        "a.npy": npy.getvalue(),
        "a.txt": b"0\n1 # one\n",
        "a.json": b'{"0": 1, "cat": 2}',
    }


SOUND = stored()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(SOUND)), st.floats(0, 1), st.booleans())
@example(b"PK\x05\x06" + bytes(8) + b"\xff" * 8 + bytes(2), "a.npz", 1, False)
@example(b"[" * 60, "a.json", 0, False)
@example(b'{"a":' * 12, "a.json", 0, False)
def test_any_bytes_as_a_file(place, noise, name, at, keep):
    sound = SOUND[name]
    start = int(at * len(sound))
    content = sound[:start] + noise + (sound[start + len(noise) :] if keep else b"")
    file = place / name
    file.write_bytes(content)
    kind = name.partition(".")[2]
    if kind in ("csv", "npz", "parquet"):
        tried(load_data, f"{kind}:{file}")
    else:
        data = load_data("digits")
        tried(picked, data, file)
        tried(matched, data, None, 10, file)
