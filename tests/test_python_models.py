"""The user's own Python: what a factory gets and gives, what is told of its faults, its digest."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from likeness import check_same, images
from safetensors.torch import save_file
from torch import nn

from robustbench_lite import InputError, load_model
from robustbench_lite.models import load_with_profile

NET = """
import torch
from torch import nn
from robustbench_lite import Classifier

class Net(nn.Module):
    def __init__(self, width=4, num_classes=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36 * width, num_classes)
        )

    def forward(self, x):
        return self.layers(x)

def make(width=4, act="relu", *, deep=False, near=None):
    net = Net(width)
    net.told = [width, act, deep, near]
    return net

def anything(**settings):
    net = Net()
    net.told = settings
    return net

def prepared():
    return Classifier(Net(), mean=[0.5] * 3, std=[0.25] * 3, classes=["a", "b", "c"])

def needs(width):
    return Net(width)

def nothing():
    pass

def breaks():
    wide = 0
    return 1 / wide

def leaves():
    raise SystemExit(3)

number = 7
"""
INSTANCE = f"{NET}\nnet = Net()\n"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file in a folder of its own, which is where one works."""
    monkeypatch.chdir(tmp_path)

    def one(text: str = NET, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return one


def own_net(width: int = 4, classes: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, width, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36 * width, classes)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("name", ["make", "Net", "anything", "net"])
def test_functions_classes_and_modules_give_the_model(name, write):
    spec = f"{write(INSTANCE if name == 'net' else NET)}:{name}"
    before = torch.get_rng_state()
    classifier, profile = load_with_profile(spec)
    assert torch.equal(torch.get_rng_state(), before)
    check_same(classifier, own_net(), images(8, 3, 8))
    told = (profile.name, profile.classes, profile.channels, profile.size, profile.test_data)
    assert told == (spec, 0, 0, 0, "")
    assert not classifier.training


def test_a_classifier_stays_what_it_is(write):
    spec = f"{write()}:prepared"
    classifier, profile = load_with_profile(spec)
    net = own_net()
    check_same(classifier, lambda x: net((x - 0.5) / 0.25), images(8, 3, 8))
    assert (classifier.name, classifier.classes, profile.classes) == (spec, ("a", "b", "c"), 3)
    with pytest.raises(InputError, match=r"gives a Classifier, .* leave out normalize"):
        load_model(f"{spec}?normalize=imagenet")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("width=3&act=gelu", [3, "gelu", False, None]),
        ("deep=true&near=null", [4, "relu", True, None]),
        ("deep=True&near=-1.5e-3", [4, "relu", True, -0.0015]),
        ("near=NaN", [4, "relu", False, "NaN"]),
        ("near=[1]", [4, "relu", False, "[1]"]),
        ('near="7"', [4, "relu", False, "7"]),
        ("near=a%26b", [4, "relu", False, "a&b"]),
    ],
)
def test_settings_are_scalars_where_they_can_be(settings, told, write):
    assert load_model(f"{write()}:make?{settings}").model.told == told


def test_our_settings_are_not_the_factory_s(write, tmp_path):
    net = nn.ModuleDict({"layers": own_net(seed=9)})
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    spec = f"{write()}:anything?normalize=0.5,0.4,0.3/0.1,0.2,0.3&weights={tmp_path}/w.safetensors"
    classifier = load_model(f"{spec}&depth=2")
    assert classifier.model.told == {"depth": 2}
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.1, 0.2, 0.3])
    x = images(8, 3, 8)
    reference = own_net(seed=9)
    check_same(classifier, lambda x: reference((x - mean.view(3, 1, 1)) / std.view(3, 1, 1)), x)
    small = load_model(f"{spec}&resize=8")
    assert small(images(2, 3, 30)).shape == (2, 3)
    wide, profile = load_with_profile(f"{write()}:Net?num_classes=6")
    assert (wide(x).shape, profile.classes) == ((8, 6), 6)
    inner = load_model(f"{write()}:prepared?weights={tmp_path}/w.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(inner(x), reference((x - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("text", "spec", "told"),
    [
        (NET, "nowhere.py:make", r"nowhere\.py cannot be read \(No such file or directory\)"),
        (NET, "net.py:mkae", "no factory in net.py is called 'mkae'; did you mean make"),
        (NET, "net.py:a.b", "'a.b' is no name in it"),
        (NET, "net.py:", "'' is no name in it; write the name of a function"),
        (NET, "net.py:number", "net.py:number is an int, which cannot be called"),
        (NET, "net.py:nothing", "net.py:nothing gives None, not a torch.nn.Module; return the"),
        (NET, "net.py:needs", r"net.py:needs needs width; write net.py:needs\?width=VALUE"),
        (NET, "net.py:make?widht=3", "no setting of net.py:make is called 'widht'.* width"),
        (INSTANCE, "net.py:net?width=3", "no setting .* is called 'width'"),
        (
            NET,
            "net.py:breaks",
            r"breaks failed \(ZeroDivisionError: division by zero in net.py, line 37\); correct it",
        ),
        (NET, "net.py:leaves", r"failed \(SystemExit: 3 in net.py, line 40\)"),
        (
            NET,
            "net.py:make?width=x",
            r"make failed \(TypeError: .* in net.py, line 10\)",
        ),
        (
            "def make(:\n",
            "net.py:make",
            r"net.py cannot be imported \(SyntaxError: .* in net.py, line 1\)",
        ),
        (
            "\nimport nowhere_at_all\n",
            "net.py:make",
            r"cannot be imported \(ModuleNotFoundError: .*'nowhere_at_all' in net.py, line 2\)",
        ),
        (NET, "nowhere_at_all.nets:make", "there is no Python module 'nowhere_at_all'; install"),
        (NET, "torch.nowhere:make", "there is no Python module 'torch.nowhere'"),
        (NET, "torch.nn:Linnear", "no factory in torch.nn is called 'Linnear'.* Linear"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(text, spec, told, write):
    write(text)
    known = {*sys.modules}
    with pytest.raises(InputError, match=told) as refused:
        load_model(spec)
    assert "\n" not in str(refused.value)
    left = {name for name in {*sys.modules} - known if name.startswith("of-file")}
    assert not left or text in (NET, INSTANCE)


DEEP = """from torch import nn

def make():
    return build()

def build():
    return nn.Linear("x", 1)
"""


def test_the_last_line_of_the_user_s_own_file_is_named(write):
    write(DEEP, "deep.py")
    with pytest.raises(InputError, match=r"in deep.py, line 7\)"):
        load_model("deep.py:make")


def test_files_beside_it_can_be_imported_now_and_later(write, tmp_path):
    write("WIDTH = 5\n", "a/widths_beside.py")
    write("from torch import nn\nclass Head(nn.Linear):\n    pass\n", "a/heads_beside/__init__.py")
    text = "from torch import nn\nfrom widths_beside import WIDTH\n"
    text += "def make():\n    from heads_beside import Head\n"
    text += "    return nn.Sequential(nn.Flatten(), Head(12, WIDTH))\n"
    path = [*sys.path]
    classifier = load_model(f"{write(text, 'a/net.py')}:make")
    assert classifier(images(2, 3, 2)).shape == (2, 5)
    assert sys.path == path
    write("WIDTH = 6\n", "b/widths_beside.py")
    with pytest.raises(InputError, match=r"b/widths_beside.py would be mistaken for .*/a/widths"):
        load_model(f"{write(text, 'b/net.py')}:make")


def test_files_of_one_name_do_not_meet_and_hide_nothing(write):
    first = load_model(f"{write(NET, 'a/torch.py')}:make")
    second = load_model(f"{write(NET.replace('width=4', 'width=2'), 'b/torch.py')}:make")
    widths = [net.model.layers[0].out_channels for net in (first, second)]
    assert widths == [4, 2]
    assert sys.modules["torch"] is torch


def test_a_module_of_the_working_folder(write, tmp_path):
    write(NET, "own_package/nets.py")
    write("", "own_package/__init__.py")
    check_same(load_model("own_package.nets:make"), own_net(), images(8, 3, 8))
    broken = "own_package.broken"
    write("\n\n1 / 0\n", "own_package/broken.py")
    with pytest.raises(InputError, match=r"ZeroDivisionError: .* in broken.py, line 3\)"):
        load_model(f"{broken}:make")


def test_the_command_attacks_it(write, tmp_path, forked_rbl):
    write()
    x = images(10, 3, 8)
    y = own_net()(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3
    np.savez(tmp_path / "d.npz", x=(x * 255).round().byte().permute(0, 2, 3, 1), y=y)
    done = forked_rbl(
        *("attack", "--model", "net.py:make?width=4", "--data", "npz:d.npz", "--attack", "fgsm"),
        *("--eps", "1", "--json", "found.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["clean_accuracy"] == 0.7
    assert found["robust_accuracy"] < 0.7


def test_the_command_tells_the_fault(write, forked_refused):
    write()
    said = forked_refused("attack", "--model", "net.py:breaks", "--data", "digits")
    assert said == (
        "rbl: net.py:breaks failed (ZeroDivisionError: division by zero in net.py, line 37); "
        "correct it there\n"
    )
