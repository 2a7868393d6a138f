"""Hugging Face: folders as the hub stores them, what their processors do, and what is refused."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from likeness import balance, check_same, images
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.transforms.functional import normalize
from transformers import (
    BitImageProcessor,
    EfficientNetImageProcessor,
    MobileViTImageProcessor,
    Siglip2ImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from robustbench_lite import InputError, load_model
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_with_profile

SIDE = 16
COLOURS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
NAMES = {0: "cat", 1: "dog", 2: "ship"}


def config(channels: int = 3, **more: Any) -> ViTConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = {"intermediate_size": 16, "image_size": SIDE, "patch_size": 8}
    return ViTConfig(**sizes, **shape, num_channels=channels, **({"id2label": NAMES} | more))


def stored(folder: Path, processor: Any, channels: int = 3) -> ViTForImageClassification:
    torch.manual_seed(0)
    net = ViTForImageClassification(config(channels)).eval()
    nn.init.normal_(net.classifier.weight)
    balance(lambda x: net(x).logits, net.classifier.bias, images(20, channels, SIDE))
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return net


def own_answers(net: nn.Module, processor: Any, x: Tensor) -> Tensor:
    """What the library itself makes of the 8-bit images."""
    photographs = [(255 * image).round().byte().permute(1, 2, 0).numpy() for image in x]
    seen = processor(images=photographs, return_tensors="pt", input_data_format="channels_last")
    with torch.no_grad():
        return net(**seen).logits


PLAIN = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": SIDE, "width": SIDE}}
PROCESSORS = {
    "normalised": (ViTImageProcessor(**PLAIN, **COLOURS), 3, 1.0, "bilinear"),
    "bicubic": (ViTImageProcessor(**PLAIN, resample=3), 3, 1.0, "bicubic"),
    "not rescaled": (ViTImageProcessor(**PLAIN, do_rescale=False, do_normalize=False), 3, 1, ""),
    "grey": (ViTImageProcessor(**PLAIN, image_mean=[0.3], image_std=[0.2]), 1, 1.0, "bilinear"),
    "blue first": (MobileViTImageProcessor(**CROPPED, do_flip_channel_order=True), 3, 0.8, ""),
    "cropped": (BitImageProcessor(**CROPPED, **COLOURS), 3, 0.8, "bicubic"),
    "shifted": (
        EfficientNetImageProcessor(**PLAIN, rescale_factor=1 / 127.5, rescale_offset=True),
        *(3, 1.0, "bicubic"),
    ),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_pixels_are_prepared_as_the_processor_does(case, tmp_path):
    processor, channels, crop, interpolation = PROCESSORS[case]
    net = stored(tmp_path, processor, channels)
    classifier, profile = load_with_profile(f"hf:{tmp_path}")
    x = images(4, channels, SIDE)
    own = processor if crop == 1 else processor.__class__(**processor.to_dict())
    if crop < 1:  # images of the model's size are neither resized nor cropped again
        own.do_resize = own.do_center_crop = False
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), own_answers(net, own, x), rtol=1e-4, atol=1e-4)
    assert (profile.size, profile.channels, profile.classes) == (SIDE, channels, 3)
    assert (profile.crop, classifier.classes) == (crop, ("cat", "dog", "ship"))
    assert interpolation in ("", profile.interpolation)


def test_gradients_go_through_the_whole(tmp_path):
    net = stored(tmp_path, ViTImageProcessor(**PLAIN, **COLOURS))
    own = COLOURS["image_mean"], COLOURS["image_std"]
    check_same(
        load_model(f"hf:{tmp_path}"), lambda x: net(normalize(x, *own)).logits, images(8, 3, SIDE)
    )


def test_the_command_reads_a_folder(tmp_path, forked_rbl):
    processor = ViTImageProcessor(**PLAIN, **COLOURS)
    net = stored(tmp_path / "net", processor)
    x = images(10, 3, SIDE)
    y = own_answers(net, processor, x).argmax(1)
    y[:4] = (y[:4] + 1) % 3
    np.savez(tmp_path / "d.npz", x=(x * 255).round().byte().permute(0, 2, 3, 1), y=y)
    done = forked_rbl(
        *("attack", "--model", "hf:./net", "--data", "npz:d.npz", "--attack", "fgsm"),
        *("--eps", "0", "--json", "found.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["model"], found["clean_accuracy"]) == ("hf:./net", 0.6)


def test_where_a_folder_lies_is_no_part_of_the_digest(tmp_path):
    stored(tmp_path / "a", ViTImageProcessor(**PLAIN))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = (load_model(f"hf:{tmp_path / name}") for name in "ab")
    first.name = second.name = "net"
    assert digest_of_model(first) == digest_of_model(second)
    with torch.no_grad():
        second.model.model.classifier.bias += 1
    assert digest_of_model(first) != digest_of_model(second)


def test_other_weights_and_another_number_of_classes(tmp_path):
    stored(tmp_path, ViTImageProcessor(**PLAIN))
    torch.manual_seed(5)
    net = ViTForImageClassification(config(id2label={i: f"LABEL_{i}" for i in range(7)})).eval()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    spec = f"hf:{tmp_path}?num_classes=7"
    classifier, profile = load_with_profile(f"{spec}&weights={tmp_path}/mine.safetensors")
    x = images(4, 3, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), net(2 * x - 1).logits)
    assert (profile.classes, classifier.classes) == (7, None)
    with pytest.raises(InputError, match="are for 3 classes, not 7; leave out"):
        load_model(spec)
    drawn, profile = load_with_profile(f"{spec}&random=yes")
    assert (profile.summary, drawn(x).shape) == ("Its weights are random.", (4, 7))
    assert torch.equal(drawn(x), load_model(f"{spec}&random=yes")(x))


def test_a_net_of_timm_in_the_hub_s_form(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=3).eval()
    told = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "a", "n2": "b"}}
    colours = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "crop_pct": 0.8}
    save_for_hf(net, tmp_path, safe_serialization=True, model_config={"num_classes": 3} | told)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["pretrained_cfg"] |= colours
    file.write_text(json.dumps(content))
    classifier, profile = load_with_profile(f"hf:{tmp_path}")
    own = colours["mean"], colours["std"]
    check_same(classifier, lambda x: net(normalize(x, *own)), images(4, 3, 160))
    assert (profile.size, profile.crop, profile.classes) == (160, 0.8, 3)
    assert classifier.classes == ("a", "b", "n3")
    with pytest.raises(InputError, match="are for 3 classes, not 4"):
        load_model(f"hf:{tmp_path}?num_classes=4")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_model(f"hf:{tmp_path}")


def changed(name: str, **fields: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


CODE = {"AutoModelForImageClassification": "net.Net"}
FOREIGN = {"AutoModelForImageClassification": "someone/else--net.Net"}


@pytest.mark.parametrize(
    ("damage", "setting", "told"),
    [
        (
            lambda f: ViTModel(config()).save_pretrained(f),
            "",
            r"has no weights for classifier\.bias, classifier\.weight.*random",
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "model.bin"),
            "",
            r"has no model\.safetensors, and no other kind of weights is read",
        ),
        (lambda f: (f / "preprocessor_config.json").unlink(), "", "nobody knows what its inputs"),
        (lambda f: (f / "config.json").unlink(), "", r"config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[1]"), "", r"config\.json cannot be read"),
        (changed("config.json", model_type="bert"), "", "cannot be loaded as an image classifier"),
        (changed("config.json", model_type="?"), "", "cannot be loaded as an image classifier"),
        (changed("config.json", auto_map=CODE), "", "needs code that comes .*trust-remote-code"),
        (
            changed("config.json", auto_map=FOREIGN),
            "?trust_remote_code=yes",
            "takes its code from another repository",
        ),
        (changed("preprocessor_config.json", auto_map=CODE), "", "needs code that comes with"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told(damage, setting, told, tmp_path):
    stored(tmp_path, ViTImageProcessor(**PLAIN))
    damage(tmp_path)
    with pytest.raises(InputError, match=told):
        load_model(f"hf:{tmp_path}{setting}")


def test_without_a_processor_the_user_says_what_inputs_are(tmp_path):
    net = stored(tmp_path, ViTImageProcessor(**PLAIN))
    (tmp_path / "preprocessor_config.json").unlink()
    x = images(2, 3, SIDE)
    with torch.no_grad():
        classifier = load_model(f"hf:{tmp_path}?normalize=none")
        torch.testing.assert_close(classifier(x), net(x).logits)


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

class Settings(PretrainedConfig):
    model_type = "of-our-own"

class Net(PreTrainedModel):
    config_class = Settings

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(3, config.num_labels)
        self.post_init()

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(pixel_values.mean((2, 3))))
"""


def test_code_of_a_folder_is_run_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", f"{tmp_path}/cache")
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "net"
    ViTImageProcessor(**PLAIN, **COLOURS).save_pretrained(folder)
    (folder / "net.py").write_text(OWN_CODE)
    code = {"AutoConfig": "net.Settings", "AutoModelForImageClassification": "net.Net"}
    told = {
        "model_type": "of-our-own",
        "auto_map": code,
        "id2label": NAMES,
        "architectures": ["Net"],
    }
    (folder / "config.json").write_text(json.dumps(told))
    head = nn.Linear(3, 3)
    weights = {f"head.{key}": value for key, value in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="needs code that comes with its repository"):
        load_model(f"hf:{folder}")
    classifier = load_model(f"hf:{folder}?trust_remote_code=yes")
    own = COLOURS["image_mean"], COLOURS["image_std"]
    check_same(classifier, lambda x: head(normalize(x, *own).mean((2, 3))), images(6, 3, SIDE))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("hf:org/name?trust_remote_code=yes", "trust_remote_code=yes .*hf:org/name@ and its 40"),
        ("hf:org/name@main?trust_remote_code=yes", "trust_remote_code=yes .*pin a commit"),
        ("hf:./nowhere", "model folder nowhere does not exist"),
        ("hf:a/b/c", "the hub has no public repository for model 'hf:a/b/c'"),
        ("hf:org/name@main", "cannot be downloaded .*go online once, or give a folder as hf:./fol"),
        ("hf:org/name?revision=main", "no setting .* 'revision'"),
    ],
)
def test_a_repository_that_cannot_be_used_is_told(spec, told, tmp_path, forked_refused):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    said = forked_refused("attack", "--model", spec, "--data", "digits", **offline)
    assert re.search(told, said), said


def test_a_picture_in_several_parts_is_refused(tmp_path):
    stored(tmp_path, Siglip2ImageProcessor())
    with pytest.raises(InputError, match="takes more than one picture an image"):
        load_model(f"hf:{tmp_path}")
