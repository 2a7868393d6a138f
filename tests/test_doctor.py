"""A model and data that do not belong together are told from a pair that does."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_lite import Classifier, Dataset, Lp, Norm, evaluate, load_data, load_model
from robustbench_lite.classifier import as_classifier
from robustbench_lite.diagnosis import diagnosed
from robustbench_lite.doubts import doubts_of
from robustbench_lite.evidence import Evidence
from robustbench_lite.threat import Access
from robustbench_lite.trust import Trust

DIGITS = load_data("digits")
SOUND = {
    *("images", "outputs", "labels", "clean accuracy"),
    *("randomness", "company", "gradients", "speed"),
}


def findings(model, data=DIGITS):
    return {f.about: f for f in diagnosed(as_classifier(model).eval(), data)}


def troubles(model, data=DIGITS):
    return {about: f.trust for about, f in findings(model, data).items() if f.trust is not Trust.OK}


class Changed(nn.Module):
    """digits-cnn, with what it is asked or what it answers changed."""

    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.model = load_model("digits-cnn")
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(self.model(self.before(x)))


def test_a_sound_pair_has_no_trouble():
    found = findings(load_model("digits-cnn-at"))
    assert found.keys() == SOUND
    assert {f.trust for f in found.values()} == {Trust.OK}
    assert found["images"].found == "600 of 1 x 8 x 8, pixels 0 to 1"
    assert found["labels"].found == "10 of 10 classes"


@pytest.mark.parametrize(("shift", "told"), [(1, "+1"), (-1, "-1")])
def test_shifted_labels(shift, told):
    moved = Dataset(DIGITS.x, (DIGITS.y - shift) % 10, "moved")
    found = findings(load_model("digits-cnn"), moved)
    assert found["order of classes"].trust is Trust.FAIL
    assert re.fullmatch(
        rf"\d\d % are taken for class label \{told}", found["order of classes"].found
    )
    assert "--class-map" in found["order of classes"].remedy


def test_classes_in_another_order():
    order = torch.tensor([5, 1, 9, 3, 7, 0, 6, 4, 8, 2])  # as names sorted in another language
    found = findings(load_model("digits-cnn"), Dataset(DIGITS.x, order[DIGITS.y], "other"))
    assert found["order of classes"].trust is Trust.FAIL
    a, b = map(
        int, re.findall(r"class (\d) as the model's (\d)", found["order of classes"].found)[0]
    )
    assert int(order[b]) == a != b


def test_few_samples_a_class_are_no_proof_of_an_order():
    """Of 100 classes, ten can be chosen so that 300 guesses look like answers in another order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 100))
    guesses = net(DIGITS.x[:300]).argmax(1)
    best = sum(int(guesses[DIGITS.y[:300] == c].bincount().max()) for c in range(10))
    assert best > 150
    assert "order of classes" not in findings(net, DIGITS.take(range(300)))


@pytest.mark.parametrize(
    ("normalize", "wrong"),
    [
        (None, ((0.5,), (0.1,))),
        (((0.0,), (1 / 255,)), None),
    ],
)
def test_a_normalisation_that_does_better_is_named(normalize, wrong):
    """The net inside wants `normalize`; the classifier around it gives `wrong`."""
    inner = load_model("digits-cnn")
    mean, std = normalize or ((0.0,), (1.0,))
    wants = Changed(before=lambda x: (x * std[0] + mean[0]).clamp(0, 1))
    given = wrong or (None, None)
    found = findings(Classifier(wants, mean=given[0], std=given[1]))
    right = {None: "none", ((0.0,), (1 / 255,)): "0/0.0039216"}
    assert found["preprocessing"].trust is Trust.FAIL
    assert found["preprocessing"].remedy == f"give --normalize {right[normalize]}"
    best = float((inner(DIGITS.x).argmax(1) == DIGITS.y).float().mean())
    points = int(re.findall(r"^(\d+) points", found["preprocessing"].found)[0])
    was = float(
        (Classifier(wants, mean=given[0], std=given[1]).eval()(DIGITS.x).argmax(1) == DIGITS.y)
        .float()
        .mean()
    )
    assert points == round(100 * (best - was))


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (lambda x: x.transpose(2, 3), "rows and columns exchanged"),
        (lambda x: 1 - x, "dark and light exchanged"),
    ],
)
def test_images_that_are_turned_round(before, told):
    found = findings(Changed(before=before))
    assert found["preprocessing"].found.endswith(told)
    assert found["preprocessing"].remedy == "change the model's preprocessing"


def test_red_and_blue():
    x = DIGITS.x.repeat(1, 3, 1, 1)
    x[:, 0] = 0
    data = Dataset(x, DIGITS.y, "coloured")
    found = findings(Changed(before=lambda x: x[:, :1]), data)
    assert found["preprocessing"].found.endswith("red and blue exchanged")


def test_what_a_model_does_otherwise_is_told():
    assert troubles(Changed(after=lambda z: z.softmax(1))) == {"outputs": Trust.WARN}
    assert troubles(Changed(after=lambda z: z + torch.randn_like(z)))["randomness"] is Trust.WARN
    assert troubles(Changed(before=lambda x: (x * 7).round() / 7)) == {"gradients": Trust.WARN}
    lost = Changed(after=lambda z: torch.where(z[:, :1] > 5, z / 0, z))
    assert troubles(lost)["outputs"] is Trust.FAIL


def test_batch_norm_that_looks_at_the_batch():
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), load_model("digits-cnn"))
    assert findings(model)["company"].trust is Trust.FAIL


def test_labels_that_the_model_does_not_know_end_it():
    found = findings(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    assert list(found) == ["images", "outputs", "labels"]
    assert found["labels"].found == "label 9, but the model knows 0 to 6"


def test_a_model_by_guess():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = findings(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert found["clean accuracy"].trust is Trust.FAIL
    assert "not above chance (10 %)" in found["clean accuracy"].found


def test_scores_have_no_gradients_to_look_at():
    classifier = Classifier(load_model("digits-cnn"), access=Access.SCORES)
    assert findings(classifier).keys() == SOUND - {"gradients"}


def test_images_divided_twice():
    found = findings(load_model("digits-cnn"), Dataset(DIGITS.x / 255, DIGITS.y, "black"))
    assert found["images"].trust is Trust.WARN


def test_the_model_is_left_as_it_was():
    model = Classifier(load_model("digits-cnn"), mean=(0.5,), std=(0.5,)).train()
    before = {k: v.clone() for k, v in [("scale", model.scale), ("shift", model.shift)]}
    list(diagnosed(model, DIGITS))
    assert model.training
    assert all(torch.equal(getattr(model, k), v) for k, v in before.items())


def test_every_evaluation_knows_shifted_labels():
    from rbl_attacks import FGSM

    moved = Dataset(DIGITS.x, (DIGITS.y + 1) % 10, "moved")
    outcome = evaluate(load_model("digits-cnn"), FGSM(), Lp(Norm.LINF, 0.1), moved)
    assert outcome.trust is Trust.FAIL
    (doubt,) = [d for d in outcome.doubts if "shifted by one" in d.why]
    before = load_model("digits-cnn")(DIGITS.x).argmax(1) == moved.y - 1
    assert doubt.why.split()[0] == f"{100 * float(before.float().mean()):.0f}"
    assert "the class before" in doubt.why
    sound = evaluate(load_model("digits-cnn"), FGSM(), Lp(Norm.LINF, 0.1), DIGITS)
    assert not any("shifted" in d.why for d in sound.doubts)


@pytest.mark.parametrize(("above", "shifted"), [(45, False), (56, True)])
def test_a_model_of_two_classes_that_always_says_the_second_is_not_shifted(above, shifted):
    doubts = doubts_of(Evidence(n=100, classes=2, correct=100 - above, above=above))
    assert any("shifted by one" in doubt.why for doubt in doubts) is shifted


def test_the_command(forked_rbl, tmp_path):
    done = forked_rbl("doctor", "digits-cnn-at", "--n", 64, cwd=tmp_path, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "digits-cnn-at on digits, 64 samples, seed 0"
    assert lines[1].split() == ["looked", "at", "trust", "found"]
    assert all(len(line) <= 80 for line in lines)
    abouts = [line[:14].strip() for line in lines[2:] if line[:14].strip()]
    assert abouts == [
        *("model", "images", "outputs", "labels", "clean accuracy"),
        *("randomness", "company", "gradients", "speed", "memory"),
    ]


def test_the_command_ends_with_3_where_figures_would_say_nothing(forked_rbl, tmp_path):
    y = ((DIGITS.y + 1) % 10).numpy()
    np.savez(tmp_path / "moved.npz", x=DIGITS.x.numpy(), y=y)
    done = forked_rbl("doctor", "digits-cnn", "npz:moved.npz", cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 3
    assert "labels are shifted by one: give --class-map" in done.stdout
    np.savez(tmp_path / "many.npz", x=DIGITS.x.numpy(), y=y + 5)
    done = forked_rbl("doctor", "digits-cnn", "npz:many.npz", cwd=tmp_path, COLUMNS="200")
    assert (done.returncode, done.stderr) == (3, "")
    assert "label 14, but the model knows 0 to 9" in done.stdout
