"""Begin from a trained backbone: what is taken over, what learns, what the card tells."""

import pytest
import torch
from safetensors.torch import load_file

from robustbench_lite import Classifier, Dataset, InputError, load_defense, load_model
from robustbench_lite.card import Recipe, read_card
from robustbench_lite.defense import Training
from robustbench_lite.models import begin_from, load_card, untrained
from robustbench_lite.train import train


def recipe(**fields: object) -> Recipe:
    source = load_card("cifar10-resnet").recipe
    usual = {"arch": source.arch, "arch_set": source.arch_set, "data": "-"}
    return Recipe.model_validate(usual | {"init_from": "cifar10-resnet"} | fields)


def begun(chosen: Recipe, classes: int = 5) -> Classifier:
    torch.manual_seed(0)
    return begin_from(untrained(chosen, classes, 3, 32, "new"), chosen)


def test_all_but_the_head_is_taken_over() -> None:
    new, source = (
        begun(recipe()).model.state_dict(),
        load_model("cifar10-resnet").model.state_dict(),
    )
    differs = {key for key in new if not torch.equal(new[key], source[key])}
    assert {key.rpartition(".")[2] for key in differs} == {"weight", "bias"}
    assert len({key.rpartition(".")[0] for key in differs}) == 1
    assert all(new[key].shape[0] == 5 for key in differs)


def images(n: int) -> Dataset:
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Dataset(x, torch.arange(n) % 5)


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_a_frozen_backbone_does_not_move_not_even_its_statistics(freeze, tmp_path) -> None:
    chosen = recipe(freeze=freeze, epochs=2, batch_size=16, lr=0.1)
    standard = load_defense("standard")
    assert isinstance(standard, Training)
    model, _ = train(
        chosen, lambda: begun(chosen), standard, images(32), tmp_path / "c", lambda _: None
    )
    after, source = model.model.state_dict(), load_model("cifar10-resnet").model.state_dict()
    moved = {
        k
        for k in after
        if after[k].shape != source[k].shape or not torch.equal(after[k], source[k])
    }
    if freeze == "none":
        assert len(moved) > 20
    else:
        assert len(moved) == 2
        before = begun(chosen).model.state_dict()
        assert all(not torch.equal(after[key], before[key]) for key in moved)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"arch_set": {"width": 8}}, r"backbone of 'resnet' with \{'width': 8\} differs in"),
        ({"arch": "lenet", "arch_set": {}}, "backbone of 'lenet' with {} differs in"),
        ({"init_sha256": "0" * 64}, "has other weights than the recipe was made with"),
    ],
)
def test_another_backbone_is_refused(fields, told) -> None:
    with pytest.raises(InputError, match=told):
        begun(recipe(**fields))


def test_so_many_of_each_class_are_chosen_by_content() -> None:
    data = Dataset(torch.rand(60, 1, 2, 2), torch.arange(60) % 3)
    few = data.each_class(4)
    assert few.y.bincount().tolist() == [4, 4, 4]
    turned = data.take(list(range(59, -1, -1))).each_class(4)
    assert sorted(turned.ids) == sorted(few.ids)
    assert sorted(data.each_class(4, seed=1).ids) != sorted(few.ids)
    with pytest.raises(InputError, match=r"has 20 samples of class \d; 21 a class are too many"):
        data.each_class(21)


def test_the_command_says_what_it_began_from_and_what_stands_beside(forked_rbl, tmp_path) -> None:
    source = load_card("digits-cnn").recipe
    settings = [f"{key}={value}" for key, value in source.arch_set.items()]
    command = (
        *("train", "--arch", source.arch, *(x for s in settings for x in ("--arch-set", s))),
        *("--data", "digits", "--per-class", 5, "--epochs", 3, "--lr", 0.02, "--n", 50),
        *("--init-from", "digits-cnn", "--freeze", "backbone", "--beside", "digits-cnn"),
        *("--test-eps", 0.1, "--check-set", "steps=3", "--out", "few.safetensors"),
    )
    done = forked_rbl(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = read_card(tmp_path / "few.toml")
    assert card.train_samples == 50
    assert card.recipe.init_sha256 == load_card("digits-cnn").sha256
    assert set(card.beside) == {"digits-cnn"}
    assert card.beside["digits-cnn"].attack == card.measured.attack
    assert card.measured.clean_accuracy > 0.8  # five labels a class, on the features of all
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["pgd", "digits-cnn"]
    weights = load_file(tmp_path / "few.safetensors")
    given = load_model("digits-cnn").model.state_dict()
    assert sum(not torch.equal(weights[key], given[key]) for key in weights) == 2


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (("--freeze", "backbone"), "give --init-from too"),
        (("--beside", "mnist-cnn"), "--beside mnist-cnn takes images of shape (1, 28, 28)"),
        (("--beside", "digits-hog-rbf"), "needs gradients"),
        (("--per-class", 500), "500 a class are too many"),
    ],
)
def test_what_cannot_be_learned_is_told_before_the_work(extra, told, forked_rbl, tmp_path) -> None:
    done = forked_rbl(
        *("train", "--arch", "cnn", "--data", "digits", "--check", "pgd"),
        *("--out", "x.safetensors", *extra),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())
