"""Defenses that hide gradients: what they compute, and what an attacker sees who knows of them."""

import pytest
import torch
from rbl_defenses import KWTA, DefensiveDistillation, Ensemble, RandomizedSmoothing, Thermometer
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite import Classifier, InputError, Lp, Norm, UnsupportedError, load_model
from robustbench_lite.card import Recipe, read_card
from robustbench_lite.defended import Defended
from robustbench_lite.models import untrained
from robustbench_lite.rng import Rng

LINF = Lp(Norm.LINF, 0.1)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def rng(n: int) -> Rng:
    return Rng(torch.arange(n))


def net() -> Classifier:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
    return Classifier(nn.Sequential(*layers).eval(), name="net")


def slope(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    return gradient


def test_thermometer_codes_which_thresholds_a_pixel_is_above() -> None:
    x = torch.tensor([0.0, 0.25, 0.26, 0.6, 1.0]).reshape(1, 1, 1, 5)
    code = Thermometer(levels=4).images(x, rng(1))
    assert code.shape == (1, 3, 1, 5)
    assert code[0, :, 0].T.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert torch.isnan(Thermometer(levels=4).images(x * torch.nan, rng(1))).all()
    two = Thermometer(levels=3).images(images(2, 2, 3, 3), rng(2))
    assert two.shape == (2, 4, 3, 3)
    assert torch.equal(two[:, :2], Thermometer(levels=3).images(images(2, 2, 3, 3)[:, :1], rng(2)))


def test_an_attacker_sees_a_ramp_about_each_threshold() -> None:
    x = torch.tensor([0.1, 0.3, 0.5, 0.9]).reshape(1, 1, 1, 4)
    leaf = x.clone().requires_grad_(True)
    ramp = Thermometer(levels=2, reach=0.25).stand_in(leaf, rng(1))
    assert torch.allclose(ramp.flatten(), torch.tensor([0.0, 0.1, 0.5, 1.0]))
    (gradient,) = torch.autograd.grad(ramp.sum(), leaf)
    assert gradient.flatten().tolist() == [0, 2, 2, 0]


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate({"arch": "cnn", "data": "-", "arch_set": {"width": 2}} | fields)


def test_a_net_is_built_for_the_channels_that_it_sees_behind_a_code() -> None:
    behind = untrained(recipe(behind=["thermometer?levels=4"]), 10, 3, 8, "behind")
    assert isinstance(behind, Defended)
    assert behind.name == "behind"
    assert next(behind.model.parameters()).shape[1] == 9
    x = images(2, 3, 8, 8)
    assert torch.equal(behind(x), behind.model(Thermometer(levels=4).images(x, rng(2))))


@pytest.mark.parametrize("spec", ["randomized-smoothing", "ensemble?others=digits-cnn"])
def test_what_a_net_cannot_be_trained_behind_is_refused(spec) -> None:
    with pytest.raises(UnsupportedError, match="cannot be trained behind"):
        untrained(recipe(behind=[spec]), 10, 1, 8, "x")


def test_k_wta_lets_the_largest_activations_of_each_image_pass() -> None:
    inner, x = net(), images(5, 1, 3, 4)
    changed = KWTA(ratio=0.25).wrap(inner)
    layers = inner.model
    assert isinstance(layers, nn.Sequential)
    hidden = layers[1](x.flatten(1))
    kept = torch.zeros_like(hidden)
    top = hidden.topk(5, 1)
    kept.scatter_(1, top.indices, top.values)
    assert torch.allclose(changed(x), layers[3](kept), atol=1e-6)
    assert torch.equal(inner(x), layers(x))  # the original still has its ReLU
    assert changed.model.state_dict().keys() == layers.state_dict().keys()


def test_who_knows_of_k_wta_goes_back_through_a_smooth_gate() -> None:
    inner, x = net(), images(5, 1, 3, 4)
    layers = inner.model
    assert isinstance(layers, nn.Sequential)
    leaf = x.clone().requires_grad_(True)
    hidden = layers[1](leaf.flatten(1))
    least = hidden.detach().topk(5, 1).values[:, 4:]
    gate = (4 * (hidden - least) / hidden.detach().std(1, keepdim=True)).sigmoid()
    (smooth,) = torch.autograd.grad(layers[3](hidden * gate)[:, 0].sum(), leaf)
    assert torch.allclose(slope(KWTA(ratio=0.25).wrap(inner), x), smooth, atol=1e-6)
    learning = KWTA(ratio=0.25).wrap(inner).train()
    inner.naive = True
    hidden = layers[1](leaf.flatten(1))
    (jumpy,) = torch.autograd.grad(layers[3](hidden * (hidden >= least))[:, 0].sum(), leaf)
    assert torch.allclose(slope(KWTA(ratio=0.25).wrap(inner), x), jumpy, atol=1e-6)
    assert torch.allclose(slope(learning, x), jumpy, atol=1e-6)  # weights learn by the true slope
    assert not torch.allclose(smooth, jumpy, atol=1e-2)


def test_k_wta_needs_relu_modules() -> None:
    bare = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), name="bare")
    with pytest.raises(UnsupportedError, match=r"nn\.ReLU modules, and bare has none"):
        KWTA().wrap(bare)


@pytest.mark.parametrize("spec", ["cifar10-resnet", "mnist-cnn"])
def test_the_zoos_nets_have_activations_to_choose_from(spec) -> None:
    before, after = load_model(spec), load_model(f"{spec}+k-wta?ratio=0.05")
    card_size = 28 if spec == "mnist-cnn" else 32
    x = images(2, 1 if spec == "mnist-cnn" else 3, card_size, card_size)
    assert not torch.allclose(before(x), after(x), atol=1e-2)
    left = [m for m in load_model(f"{spec}+k-wta").modules() if isinstance(m, nn.ReLU)]
    assert not left


def test_distillation_learns_at_the_temperature_from_labels_or_a_teacher() -> None:
    model, x, y = net(), images(6, 1, 3, 4), torch.arange(6) % 3
    hard = DefensiveDistillation(temperature=5.0).loss(model, x, y, LINF, rng(6))
    assert torch.allclose(hard, 5 * functional.cross_entropy(model(x) / 5, y))
    taught = load_model("digits-cnn")
    x = images(6, 1, 8, 8)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    soft = DefensiveDistillation(temperature=5.0, teacher="digits-cnn")
    loss = soft.loss(student, x, y, LINF, rng(6))
    told = (taught(x) / 5).softmax(1)
    by_hand = -5 * (told * (student(x) / 5).log_softmax(1)).sum(1).mean()
    assert torch.allclose(loss, by_hand, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, [p for p in student.parameters() if p.ndim == 2])
    assert float(gradient.abs().max()) > 0


def test_who_does_not_know_of_distillation_sees_no_gradient() -> None:
    class Loud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 * x.flatten(1)[:, :3]

    loud = Classifier(Loud())
    unaware = DefensiveDistillation().unaware(loud)
    x = torch.tensor([[0.9, 0.1, 0.3, 0.5]]).reshape(1, 1, 2, 2)
    assert torch.allclose(unaware(x), loud(x))
    assert float(slope(loud, x).abs().max()) == 1000
    assert float(slope(unaware, x).abs().max()) == 0


def test_smoothing_and_ensembles_are_found_where_a_wrapping_is_expected() -> None:
    for defense in (RandomizedSmoothing(), Ensemble(others="digits-cnn")):
        assert defense.channels(3) == 3


def test_a_net_behind_a_code_is_trained_written_and_attacked(forked_rbl, tmp_path) -> None:
    learn = (
        *("train", "--arch", "cnn", "--arch-set", "width=4", "--arch-set", "hidden=16"),
        *("--data", "digits", "--epochs", 20, "--lr", 0.1, "--batch-size", 64, "--n", 60),
        *("--behind", "thermometer?levels=8", "--behind", "k-wta?ratio=0.5", "--test-eps", 0.1),
        *("--check-set", "steps=10"),
    )
    done = forked_rbl(*learn, "--out", "coded.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = read_card(tmp_path / "coded.toml")
    assert card.recipe.behind == ("thermometer?levels=8", "k-wta?ratio=0.5")
    assert card.channels == 1
    assert card.measured.clean_accuracy > 0.7
    robust = []
    for more in ((), ("--naive",)):
        run = ("attack", "-m", "coded.safetensors", "-a", "pgd", "--n", 100, *more)
        attacked = forked_rbl(*run, cwd=tmp_path)
        assert attacked.returncode == 0, attacked.stderr
        robust.append(float(attacked.stdout.splitlines()[2].split()[2]))
        assert ("this is not robustness" in attacked.stdout) == bool(more)
    assert robust[0] < robust[1] - 10


def test_there_is_nothing_naive_about_a_model_without_a_defense(forked_rbl, tmp_path) -> None:
    done = forked_rbl("attack", "-m", "digits-cnn", "-a", "pgd", "--naive", cwd=tmp_path)
    assert done.returncode == 2
    assert "--naive: digits-cnn has no defense to ignore" in done.stderr


def test_a_machine_that_is_fitted_takes_no_defense(forked_rbl, tmp_path) -> None:
    done = forked_rbl(
        *("train", "--arch", "hog-linear", "--data", "digits", "--behind", "bit-depth"),
        *("--out", "x.safetensors"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "takes no defense; leave out --behind bit-depth" in done.stderr
    with pytest.raises(InputError, match="trained in"):
        untrained(recipe(behind=["pgd-at"]), 10, 1, 8, "x")
