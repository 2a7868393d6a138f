"""torchvision, timm and RobustBench: the library's own net, whatever is said around it."""

import json
import sys

import numpy as np
import pytest
import timm
import torch
from likeness import check_same, images
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize

from robustbench_lite import InputError, Norm, load_model
from robustbench_lite.models import load_with_profile

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def saved(module: nn.Module, path) -> nn.Module:
    save_file(module.state_dict(), path)
    return module.eval()


@pytest.fixture
def squeezenet(tmp_path) -> nn.Module:
    """Trained nowhere, with weights in net.safetensors."""
    torch.manual_seed(3)
    return saved(models.squeezenet1_1(num_classes=5), tmp_path / "net.safetensors")


def test_torchvision_with_weights_of_the_user(squeezenet, tmp_path):
    spec = f"torchvision:squeezenet1_1?weights={tmp_path}/net.safetensors&num_classes=5"
    classifier, profile = load_with_profile(spec)
    check_same(classifier, lambda x: squeezenet(normalize(x, *IMAGENET)), images(6, 3, 40, 32))
    told = (profile.classes, profile.channels, profile.size, profile.summary, classifier.classes)
    assert told == (5, 3, 0, "", None)


def test_the_user_says_what_its_inputs_are(squeezenet, tmp_path):
    spec = f"torchvision:squeezenet1_1?weights={tmp_path}/net.safetensors&num_classes=5"
    own = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    x = images(4, 3, 32)
    for settings, seen in (
        ("normalize=none", x),
        ("normalize=none&bounds=-1,1", 2 * x - 1),
        ("normalize=0.4,0.5,0.6/0.1,0.2,0.3", normalize(x, *own)),
        ("bounds=0,255", normalize(255 * x, *IMAGENET)),
    ):
        with torch.no_grad():
            found = load_model(f"{spec}&{settings}")(x)
            torch.testing.assert_close(found, squeezenet(seen), rtol=1e-4, atol=1e-4)
    assert load_model(f"{spec}&resize=32")(images(2, 3, 50)).shape == (2, 5)


def test_the_command_counts_what_the_library_counts(squeezenet, tmp_path, forked_rbl):
    x = images(10, 3, 32)
    with torch.no_grad():
        y = squeezenet(normalize(x, *IMAGENET)).argmax(1)
    y[:3] = (y[:3] + 1) % 5
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "data.npz", x=pixels, y=y.numpy())
    done = forked_rbl(
        *("attack", "--model", "torchvision:squeezenet1_1", "--weights", "net.safetensors"),
        *("--num-classes", 5, "--data", "npz:data.npz", "--attack", "fgsm", "--eps", "0"),
        *("--json", "found.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["clean_accuracy"], found["robust_accuracy"]) == (0.7, 0.7)


def test_named_weights_of_torchvision_tell_what_their_file_is_for(tmp_path):
    torch.manual_seed(0)
    net = saved(models.mobilenet_v3_small(), tmp_path / "w.safetensors")
    spec = f"torchvision:mobilenet_v3_small@IMAGENET1K_V1?weights={tmp_path}/w.safetensors"
    classifier, profile = load_with_profile(spec)
    told = (profile.classes, profile.size, profile.crop, profile.interpolation, profile.eps)
    assert told == (1000, 224, 0.875, "bilinear", 4 / 255)
    assert classifier.classes is not None
    assert classifier.classes[:2] == ("tench", "goldfish")
    x = images(3, 3, 64)
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), net(normalize(x, *IMAGENET)))


def test_published_inceptions_reorder_colours_and_others_do_not(tmp_path):
    saved(models.googlenet(init_weights=False), tmp_path / "g.safetensors")
    file = f"weights={tmp_path}/g.safetensors"
    assert load_model(f"torchvision:googlenet@DEFAULT?{file}").model.transform_input is True
    assert load_model(f"torchvision:googlenet?{file}").model.transform_input is False


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_random_weights_are_wished_for_and_the_same_each_time(spec):
    with pytest.raises(InputError) as refused:
        load_model(spec)
    for remedy in ("would have random weights", "--weights FILE", "?random=yes", f"{spec[:5]}"):
        assert remedy in str(refused.value)
    before = torch.get_rng_state()
    first, profile = load_with_profile(f"{spec}?random=yes&num_classes=4")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = load_model(f"{spec}?random=yes&num_classes=4")
    assert (profile.summary, profile.classes) == ("Its weights are random.", 4)
    x = images(2, 3, 160)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("torchvision:resnet19", "no classification net of torchvision is called 'resnet19'.*18"),
        ("torchvision:fcn_resnet50", "no classification net of torchvision"),
        ("torchvision:resnet18@IMAGENET_V1", "no set of weights of .*IMAGENET1K_V1"),
        ("torchvision:resnet18@DEFAULT?num_classes=10", "are for 1000 classes, not 10"),
        ("torchvision:resnet18@DEFAULT?random=yes", "has weights and random=yes"),
        ("torchvision:resnet18?weights=w.pt&random=yes", "has weights and random=yes"),
        ("torchvision:resnet18?random=1", "random=1 is neither yes nor no"),
        ("torchvision:resnet18?wieghts=w.pt", "no setting .* 'wieghts'; did you mean weights"),
        ("torchvision:resnet18?random=yes&normalize=0.5/0.1,0.2", "none of imagenet, model"),
        ("torchvision:resnet18?random=yes&normalize=nan/1", "none of imagenet, model"),
        ("torchvision:resnet18?random=yes&normalize=0.5/0", "none of imagenet, model"),
        ("torchvision:resnet18?random=yes&normalize=0.5,0.5/1,1", "3 channels.* has 2 numbers"),
        ("torchvision:resnet18?random=yes&bounds=1,0", "bounds=1,0 are not LOW,HIGH"),
        ("torchvision:resnet18?random=yes&num_classes=0", "is not a number of 1 or more"),
        ("timm:test_vitt?random=yes", "no net of timm is called 'test_vitt'.*test_vit"),
        ("timm:test_vit.r16", "no set of weights of timm:test_vit .*r160_in1k"),
        ("timm:test_vit.r160_in1k?num_classes=3", "are for 1000 classes, not 3"),
        ("timm:test_resnet?random=yes&img_size=32", "timm cannot build .* with img_size=32 "),
        ("timm:test_vit?random=yes&in_chans=1&normalize=imagenet", "takes 1 channels"),
        ("robustbench:X@L3", "no threat model of robustbench is called 'L3'"),
        ("robustbench:X?data=mnist", "no zoo of robustbench is called 'mnist'"),
    ],
)
def test_what_cannot_be_is_told(spec, told):
    with pytest.raises(InputError, match=told):
        load_model(spec)


def test_weights_that_cannot_be_downloaded_are_told(tmp_path, monkeypatch, forked_refused):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub").write_text("a file where torchvision wants a folder")
    with pytest.raises(InputError, match=r"squeezenet1_1@DEFAULT' cannot be downloaded"):
        load_model("torchvision:squeezenet1_1@DEFAULT")
    command = ("attack", "--model", "timm:test_vit.r160_in1k", "--data", "digits")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    assert "cannot be downloaded" in forked_refused(*command, **offline)


def test_timm_with_weights_of_the_user(tmp_path):
    torch.manual_seed(0)
    net = saved(timm.create_model("test_vit", num_classes=5), tmp_path / "w.safetensors")
    spec = f"timm:test_vit?num_classes=5&weights={tmp_path}/w.safetensors"
    classifier, profile = load_with_profile(spec)
    check_same(classifier, lambda x: net(normalize(x, [0.5] * 3, [0.5] * 3)), images(6, 3, 160))
    told = (profile.classes, profile.channels, profile.size, profile.crop, profile.interpolation)
    assert told == (5, 3, 160, 0.95, "bicubic")


def test_a_tag_of_timm_tells_what_its_file_is_for(tmp_path):
    saved(timm.create_model("test_resnet"), tmp_path / "w.safetensors")
    spec = f"timm:test_resnet.r160_in1k?weights={tmp_path}/w.safetensors"
    classifier, profile = load_with_profile(spec)
    assert (profile.size, profile.classes) == (160, 1000)
    assert classifier.classes is not None
    assert classifier.classes[1].startswith("goldfish")


def test_sizes_and_channels_of_timm_can_be_chosen():
    spec = "timm:test_vit?random=yes&num_classes=3&img_size=32&in_chans=1"
    classifier, profile = load_with_profile(spec)
    assert (profile.size, profile.channels, profile.eps) == (32, 1, 8 / 255)
    net = classifier.model
    check_same(classifier, lambda x: net((x - 0.5) / 0.5), images(4, 1, 32))


ZOO = """
from torch import nn, manual_seed
from torchvision.transforms.functional import normalize

def load_model(model_name, model_dir, dataset, threat_model):
    print("Download started")
    models = {("cifar10", "L2"): {"Rony2019Decoupling": 3}}
    manual_seed(models[dataset, threat_model][model_name])
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 10))
"""


def test_a_net_of_robustbench(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(InputError, match=r"needs the package robustbench .*pip install"):
        load_model("robustbench:Rony2019Decoupling@L2")
    monkeypatch.delitem(sys.modules, "robustbench")
    (tmp_path / "robustbench").mkdir()
    (tmp_path / "robustbench" / "__init__.py").touch()
    (tmp_path / "robustbench" / "utils.py").write_text(ZOO)
    monkeypatch.syspath_prepend(tmp_path)
    classifier, profile = load_with_profile("robustbench:Rony2019Decoupling@L2")
    told = (profile.norm, profile.eps, profile.size, profile.classes, profile.test_data)
    assert told == (Norm.L2, 0.5, 32, 10, "torchvision:CIFAR10")
    assert capsys.readouterr().out == ""
    torch.manual_seed(3)
    check_same(
        classifier,
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 10)),
        images(5, 3, 32),
    )
    with pytest.raises(InputError, match="has no model 'Rony2019Decoupling' for data=cifar10 and"):
        load_model("robustbench:Rony2019Decoupling")
    for name in ("robustbench", "robustbench.utils"):
        monkeypatch.delitem(sys.modules, name)
