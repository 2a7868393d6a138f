"""Defenses behind a model's name: chains that cannot be built, and how a naive attack is marked."""

import pytest
import torch
from rbl_defenses import Ensemble
from torch import nn

from robustbench_lite import Classifier, InputError, load_model


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("digits-cnn+jpg", ["'jpg'", "did you mean jpeg"]),
        ("digits-cnn+", ["no defense is called ''"]),
        ("digits-cnn+pgd-at", ["'pgd-at' is trained in", "--defense pgd-at"]),
        ("digits-cnn+jpeg?quality=0", ["'jpeg'", "quality"]),
        ("digits-cnn+jpeg?quality", ["'quality'", "jpeg?key=value"]),
        ("digits-cnn+jpeg?quality=5&quality=6", ["'quality=6'", "jpeg?key=value"]),
        ("digits-cnn+jpeg?colour=5", ["'colour'", "quality"]),
        ("digits-cnn+ensemble", ["'ensemble'", "others"]),
        ("nobody+jpeg", ["'nobody'"]),
    ],
)
def test_a_chain_that_cannot_be_built_says_why(spec: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        load_model(spec)
    for part in parts:
        assert part in str(refusal.value)


def test_members_with_other_classes_are_refused() -> None:
    three = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    pair = Ensemble(others="digits-cnn").wrap(three)
    with pytest.raises(InputError, match="3, 10 classes"):
        pair(torch.rand(2, 1, 8, 8))


def test_the_command_marks_a_naive_attack(forked_rbl, tmp_path) -> None:
    common = ("attack", "--attack", "fgsm", "--n", "20", "--model", "digits-cnn+bit-depth?bits=2")
    done = forked_rbl(*common, "--naive", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "this is not robustness" in " ".join(done.stdout.split())
    assert "not robustness" not in forked_rbl(*common, cwd=tmp_path).stdout


def test_the_command_refuses_naive_without_a_defense(forked_refused) -> None:
    said = forked_refused("attack", "--attack", "fgsm", "--model", "digits-cnn", "--naive")
    assert "--naive" in said
    assert "has no defense to ignore" in said
