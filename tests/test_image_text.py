"""Classes told by captions: the training objective, words chosen at evaluation, open_clip."""

import json
from pathlib import Path

import pytest
import torch
from rbl_defenses import Contrastive
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite import (
    Classifier,
    Dataset,
    InputError,
    Lp,
    Norm,
    evaluate,
    load_attack,
    load_data,
    load_model,
)
from robustbench_lite.card import Recipe
from robustbench_lite.models import build, load_with_profile
from robustbench_lite.rng import Rng
from robustbench_lite.zoo.clip import ImageText

NAMES = "cat|pet,dog|pet,car"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def untrained() -> ImageText:
    values = {"names": NAMES, "templates": "a {}|the {} here", "width": 4, "depth": 1, "out": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build(Recipe(arch="clip", arch_set=values, data="-"), 3, 3, 8)
    assert isinstance(net, ImageText)
    return net.eval()


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def accuracy(spec: str, labels: Tensor) -> float:
    with torch.no_grad():
        return float((load_model(spec)(load_data("digits").x).argmax(1) == labels).float().mean())


def test_logits_are_cosines_with_the_mean_of_the_captions():
    net, x = untrained(), images(4)
    rows = []
    for word in ("cat", "dog", "car"):
        told = [f"a {word}", f"the {word} here"]
        tokens = torch.tensor([list(t.encode().ljust(64, b"\0")) for t in told])
        parts = [functional.normalize(v, dim=0) for v in net.text(tokens)]
        rows.append(functional.normalize(parts[0] + parts[1], dim=0))
    alike = functional.normalize(net.image(x)) @ torch.stack(rows).T
    assert torch.allclose(net(x), alike / 0.07, atol=1e-4)


def test_in_training_the_text_encoder_is_asked_anew_and_learns():
    net = untrained().train()
    with torch.no_grad():
        net.text.head.weight.mul_(-1)
    net(images(4))[:, 0].sum().backward()
    assert net.text.head.weight.grad is not None
    assert float(net.text.head.weight.grad.abs().sum()) > 0
    before = net.classes.clone()
    assert not torch.equal(net.eval().classes, before)


def test_a_word_is_true_of_every_class_that_has_it():
    net = untrained()
    captions = ["a pet", "the dog here", "a car", "a horse"]
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert net.true_of(captions, torch.tensor([0, 1, 2])).int().tolist() == expected


def test_captions_belong_to_the_sample():
    net, y = untrained(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    keys = torch.arange(8)
    whole = net.captions(y, Rng(keys))
    assert whole[5:] == net.captions(y[5:], Rng(keys[5:]))
    assert all(net.true_of([c], y[i : i + 1]).all() for i, c in enumerate(whole))
    assert len(set(net.captions(torch.zeros(200).long(), Rng(torch.arange(200))))) == 4


class Fixed(nn.Module):
    """Three images and the captions p, q and r; p is true of the first two images."""

    alikeness = torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
    true = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()

    def alike(self, x: Tensor, captions: list[str]) -> Tensor:
        assert captions == ["p", "q", "r"]
        assert torch.equal(x, torch.full((3, 1, 2, 2), 3.0))  # normalised
        return self.alikeness

    def captions(self, y: Tensor, rng: Rng) -> list[str]:
        return ["p", "q", "p", "r"]

    def true_of(self, captions: list[str], y: Tensor) -> Tensor:
        return self.true


def test_the_contrastive_loss_is_the_papers():
    model = Classifier(Fixed(), mean=[0.25], std=[0.25])
    x, y = torch.ones(3, 1, 2, 2), torch.tensor([0, 1, 2])
    loss = Contrastive().loss(model, x, y, Lp(Norm.LINF, 0.0), Rng(torch.arange(3)))
    rows, columns = Fixed.alikeness.log_softmax(1), Fixed.alikeness.log_softmax(0)
    of_images = -(rows[0, 0] + (rows[1, 0] + rows[1, 1]) / 2 + rows[2, 2]) / 3
    of_captions = -((columns[0, 0] + columns[1, 0]) / 2 + columns[1, 1] + columns[2, 2]) / 3
    assert float(loss) == pytest.approx(float(of_images + of_captions) / 2, abs=1e-6)


def test_an_architecture_without_captions_cannot_learn_from_them(forked_refused):
    said = forked_refused(
        *("train", "--arch", "cnn", "--defense", "contrastive", "--data", "digits"),
        *("--epochs", 1, "--out", "x.safetensors"),
    )
    assert "contrastive learns from captions" in said


def test_names_and_templates_must_fit(forked_refused):
    train = ("train", "--arch", "clip", "--data", "digits", "--out", "x.safetensors")
    assert "names has 2 classes for 10" in forked_refused(*train, "--arch-set", "names=a,b")
    names = "names=" + ",".join(DIGITS)
    said = forked_refused(*train, "--arch-set", names, "--arch-set", "templates=a {}|none")
    assert "'none' needs {} once" in said


def test_prompts_that_were_never_trained_with_still_tell_the_digits():
    labels = load_data("digits").y
    assert accuracy("clip:digits-clip", labels) == accuracy("digits-clip", labels) > 0.94
    assert accuracy("clip:digits-clip?prompts=there is a {} here", labels) > 0.9
    assert accuracy("clip:digits-clip?prompts=there is a {} here|my {}", labels) > 0.9


def test_classes_are_chosen_at_evaluation_and_their_order_is_that_of_the_labels():
    odd = load_data("digits").y % 2
    assert accuracy("clip:digits-clip?classes=even,odd", odd) > 0.95
    assert accuracy("clip:digits-clip?classes=odd,even", 1 - odd) > 0.95
    swapped = ",".join(reversed(DIGITS))
    assert accuracy(f"clip:digits-clip?classes={swapped}", 9 - load_data("digits").y) > 0.94
    classifier, profile = load_with_profile("clip:digits-clip?classes=even,odd")
    assert (classifier.classes, profile.classes) == (("even", "odd"), 2)
    assert load_model("clip:digits-clip").classes == DIGITS


def test_an_attack_on_chosen_words_from_end_to_end(forked_rbl, tmp_path):
    spec = "clip:digits-clip?prompts=a drawing of a {}"
    done = forked_rbl(
        *("attack", "--model", spec, "--attack", "pgd", "--n", 60, "--json", "found.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["model"] == spec
    assert found["clean_accuracy"] > 0.85
    assert found["robust_accuracy"] < 0.5


def test_other_words_other_verdicts():
    data = load_data("digits").sample(60)
    halves = Dataset(data.x, data.y % 2)
    attack, threat = load_attack("pgd"), Lp(Norm.LINF, 0.1)
    digits = evaluate(load_model("clip:digits-clip"), attack, threat, data)
    parity = evaluate(load_model("clip:digits-clip?classes=even,odd"), attack, threat, halves)
    assert parity.clean_accuracy > 0.9
    assert digits.robust_accuracy != parity.robust_accuracy


def test_a_defense_may_follow(forked_rbl, tmp_path):
    spec = "clip:digits-clip?prompts=a {}+bit-depth?bits=2"
    done = forked_rbl("attack", "--model", spec, "--attack", "fgsm", "--n", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert spec in done.stdout


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("clip", "write clip:NAME"),
        ("clip:", "write clip:NAME"),
        ("clip:digits-cnn", "has no text encoder"),
        ("clip:digits-clap", "did you mean digits-clip"),
        ("clip:digits-clip?prompts=a photo", "needs {} once"),
        ("clip:digits-clip?prompt=a {}", "did you mean prompts"),
        ("clip:digits-clip?classes=one", "two classes or more"),
        ("clip:digits-clip?classes=one,,two", "two classes or more"),
        ("clip:digits-clip?classes=one,one", "each once"),
        ("clip:digits-clip?classes", "KEY=VALUE"),
        (f"clip:digits-clip?prompts=a {'very ' * 20}{{}}", "more than 64 letters"),
        ("open_clip:ViT-B-32", "is not ARCH/TAG"),
        ("open_clip:ViT-B-33/openai", "did you mean ViT-B-32"),
        ("open_clip:ViT-B-32/openia", "did you mean openai"),
        ("open_clip:ViT-B-32/openai", "needs its classes"),
        ("open_clip:ViT-B-32/openai?classes=@none.txt", "none.txt cannot be read"),
        ("open_clip:ViT-B-32/openai?classes=a,b&size=big", "size=big"),
    ],
)
def test_what_cannot_be_loaded_is_told(spec, told):
    with pytest.raises(InputError) as error:
        load_model(spec)
    assert told in str(error.value)


def test_the_command_tells_it_in_one_sentence(forked_refused):
    attack = ("attack", "--attack", "fgsm", "--model")
    assert "did you mean prompts" in forked_refused(*attack, "clip:digits-clip?prompt=a {}")
    said = forked_refused(*attack, "clip:digits-clip?classes=odd,even")
    assert "the model knows 2 classes" in said
    assert "did you mean ViT-B-32" in forked_refused(*attack, "open_clip:ViT-B-33/openai")


def test_what_has_no_card_of_its_own_is_nothing_to_begin_from(forked_refused):
    said = forked_refused(
        *("train", "--arch", "cnn", "--data", "digits", "--out", "x.safetensors"),
        *("--init-from", "clip:digits-clip"),
    )
    assert "has no card of its own" in said


def test_sources_are_listed_and_shown(forked_rbl, tmp_path):
    listed = forked_rbl("list", "models", cwd=tmp_path, COLUMNS="120").stdout
    assert "clip:NAME?prompts=" in listed
    assert "open_clip:ARCH/TAG" in listed
    shown = forked_rbl("show", "clip", cwd=tmp_path).stdout
    assert "Several prompts are separated by |" in shown


TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A registered configuration of open_clip with random weights in a file."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    (tmp_path / "rbl-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "rbl-tiny.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("rbl-tiny")
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    return f"open_clip:rbl-tiny/{tmp_path / 'tiny.safetensors'}"


def test_open_clip_gives_the_packages_own_logits(tiny: str):
    import open_clip

    classifier, profile = load_with_profile(f"{tiny}?classes=cat,dog,car&prompts=a {{}}|my {{}}")
    model = open_clip.create_model("rbl-tiny", pretrained=tiny.partition("/")[2]).eval()
    x = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(v).reshape(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std)
    )
    tokenizer, rows = open_clip.get_tokenizer("rbl-tiny"), []
    with torch.no_grad():
        for name in ("cat", "dog", "car"):
            told = model.encode_text(tokenizer([f"a {name}", f"my {name}"]), normalize=True)
            rows.append(functional.normalize(told.mean(0), dim=0))
        seen = model.encode_image((x - mean) / std, normalize=True)
        expected = model.logit_scale.exp() * seen @ torch.stack(rows).T
        assert torch.allclose(classifier(x), expected, atol=1e-4)
    assert (profile.size, profile.classes, classifier.classes) == (16, 3, ("cat", "dog", "car"))


def test_open_clip_is_attacked_on_images_of_another_size(tiny: str, tmp_path: Path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    spec = f"{tiny}?classes=@{tmp_path / 'names.txt'}&size=8"
    classifier, profile = load_with_profile(spec)
    assert profile.size == 8
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = classifier(x).argmax(1)
    found = evaluate(classifier, load_attack("pgd"), Lp(Norm.LINF, 0.3), Dataset(x, labels))
    assert found.clean_accuracy == 1.0
    assert found.robust_accuracy < 1.0


def test_open_clip_refuses_a_file_that_holds_other_weights(tiny: str, tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"nothing": torch.zeros(1)}, tmp_path / "other.safetensors")
    spec = f"open_clip:rbl-tiny/{tmp_path / 'other.safetensors'}?classes=cat,dog"
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(spec)
    with pytest.raises(InputError, match="needs its classes"):
        load_model(tiny)
