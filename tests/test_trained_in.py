"""Defenses that are trained in: their losses against the papers' formulas, their searches."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from rbl_defenses import AWP, IBP, MART, PGDAT, TRADES, FastAT, FreeAT
from rbl_defenses.adversarial import Adversarial
from rbl_defenses.ibp import certified, worst_margins
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite import Classifier, InputError, Lp, Norm, UnsupportedError, load_defense
from robustbench_lite.card import Recipe
from robustbench_lite.data import Dataset
from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.train import train

THREAT = Lp(Norm.LINF, 0.1)
SEARCHING: list[Adversarial] = [PGDAT(steps=4), FastAT(), TRADES(steps=4), MART(steps=4)]


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeded(build: type[nn.Sequential], *layers: nn.Module) -> nn.Sequential:
    net = build(*layers)
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(torch.randn(p.shape, generator=stream(number)) / p.shape[-1] ** 0.5)
    return net


def net() -> nn.Module:
    return seeded(
        nn.Sequential,
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


def plain_net() -> nn.Module:
    conv = nn.Conv2d(2, 3, 3, 2, 1, bias=False)
    return seeded(nn.Sequential, conv, nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))


def batch(n: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, channels, 6, 6, generator=stream(7))
    return x, torch.arange(n) % 4


def rng(n: int) -> Rng:
    return Rng(torch.arange(n))


@pytest.mark.parametrize("defense", SEARCHING, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
def test_the_search_stays_within_the_threat_and_finds_what_is_worse(defense, norm):
    (x, y), model = batch(40), net().train()
    threat = Lp(norm, {Norm.LINF: 0.1, Norm.L2: 0.5, Norm.L1: 2.0}[norm])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adv = defense.search(model, x, y, threat, rng(40))
    assert bool(threat.contains(x, adv).all())
    assert not adv.requires_grad
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    chance = threat.random_point(x, rng(40))

    def worse(at: Tensor) -> Tensor:
        if isinstance(defense, TRADES):
            there = model(x).softmax(1)
            return functional.kl_div(model(at).log_softmax(1), there, reduction="batchmean")
        return functional.cross_entropy(model(at), y)

    with torch.no_grad():
        gain, luck = worse(adv) - worse(x), worse(chance) - worse(x)
    assert float(gain) > 2 * abs(float(luck))


def test_the_search_does_not_depend_on_the_batch():
    (x, y), model = batch(12), net()
    for defense in SEARCHING:
        whole = defense.search(model, x, y, THREAT, rng(12))
        part = defense.search(model, x[5:9], y[5:9], THREAT, Rng(torch.arange(5, 9)))
        assert torch.allclose(whole[5:9], part, atol=1e-6)


def test_trades_is_its_formula():
    (x, y), model = batch(9), net().eval()
    adv = (x + 0.05).clamp(0, 1)
    p, q = model(x).softmax(1).detach(), model(adv).softmax(1).detach()
    expected = -p[torch.arange(9), y].log().mean() + 3 * (p * (p / q).log()).sum(1).mean()
    found = TRADES(beta=3).objective(model, x, adv, y).detach()
    assert float(found) == pytest.approx(float(expected))


def test_mart_is_its_formula():
    (x, y), model = batch(9), net().eval()
    adv = (x + 0.05).clamp(0, 1)
    p, q, rows = model(x).softmax(1), model(adv).softmax(1), torch.arange(9)
    rival = torch.stack([q[i][torch.arange(5) != y[i]].max() for i in rows])
    boosted = -q[rows, y].log() - (1 - rival).log()
    expected = (boosted + 2 * (p * (p / q).log()).sum(1) * (1 - p[rows, y])).mean()
    found = MART(weight=2).objective(model, x, adv, y).detach()
    assert float(found) == pytest.approx(float(expected.detach()))


def test_free_training_moves_weights_and_images_by_the_same_pass():
    (x, y), model = batch(8), plain_net()
    x = x.expand(-1, 2, -1, -1).contiguous()
    seen: list[Tensor] = []
    values = []
    hook = model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for loss in FreeAT(replays=4).losses(model, x, y, THREAT, rng(8)):
        values.append(float(loss.detach()))
        loss.backward()
    hook.remove()
    assert len(seen) == 4
    assert torch.equal(seen[0], THREAT.random_point(x, rng(8)))
    for leaf, after in pairwise(seen):
        assert leaf.grad is not None
        step = THREAT.project(x, leaf.detach() + THREAT.eps * leaf.grad.sign())
        assert torch.allclose(after, step, atol=1e-6)
    assert values == sorted(values)  # nobody moved the weights meanwhile: images only got worse
    assert values[0] < values[-1]


def test_awp_learns_at_moved_weights_and_leaves_them():
    (x, y), model = batch(16), net().train()
    defense, share = AWP(on="trades?steps=2&beta=2", share=0.02), 0.02
    below = TRADES(steps=2, beta=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    defense.loss(model, x, y, THREAT, rng(16)).backward()
    found = [p.grad.clone() for p in model.parameters()]
    assert all(torch.equal(p, before[k]) for k, p in model.named_parameters())
    assert int(model[1].num_batches_tracked) == 2  # image and adversarial, once each

    by_hand = net().train()
    adv = below.search(by_hand, x, y, THREAT, rng(16))
    layers = [p for p in by_hand.parameters() if p.ndim > 1]
    uphill = torch.autograd.grad(below.objective(by_hand, x, adv, y), layers)
    with torch.no_grad():
        for p, slope in zip(layers, uphill, strict=True):
            p += share * p.norm() * slope / slope.norm()
    below.objective(by_hand, x, adv, y).backward()
    for p, got in zip(by_hand.parameters(), found, strict=True):
        assert torch.allclose(p.grad, got, atol=1e-5)


def test_awp_stands_on_a_search_only():
    with pytest.raises(InputError, match="'standard' has no adversarial search"):
        AWP(on="standard")
    with pytest.raises(InputError, match="did you mean trades"):
        AWP(on="trade")


def test_interval_bounds_hold_and_are_exact_without_relu():
    x, y = batch(6, channels=2)
    model = Classifier(plain_net(), mean=(0.4, 0.5), std=(0.5, 0.2))
    bounds = worst_margins(model, x, y, 0.05)
    assert torch.equal(bounds[torch.arange(6), y], torch.zeros(6))
    worst = torch.full_like(bounds, -torch.inf)
    for seed in range(200):
        noise = 0.05 * (2 * torch.rand(x.shape, generator=stream(seed)) - 1).sign()
        logits = model((x + noise).clamp(0, 1)).detach()
        worst = torch.maximum(worst, logits - logits[torch.arange(6), y][:, None])
    assert bool((worst <= bounds + 1e-5).all())
    assert float((bounds - worst).detach().max()) < 20 * float(worst.std())

    flat = seeded(nn.Sequential, nn.Flatten(), nn.Linear(72, 4))
    weight = flat[1].weight.detach()
    inside = 0.25 + 0.5 * x
    exact = flat(inside) - flat(inside)[torch.arange(6), y][:, None]
    exact = exact + 0.05 * (weight[None] - weight[y][:, None]).abs().sum(2)
    assert torch.allclose(worst_margins(flat, inside, y, 0.05), exact, atol=1e-5)


def test_certified_means_that_no_class_can_pass():
    model = seeded(nn.Sequential, nn.Flatten(), nn.Linear(72, 4))
    x = 0.25 + 0.5 * batch(30, channels=2)[0]
    y = model(x).argmax(1)
    weight = model[1].weight.detach()
    gap = model(x).gather(1, y[:, None]) - model(x)
    reach = gap / (weight[None] - weight[y][:, None]).abs().sum(2)
    distance = reach.masked_fill(functional.one_hot(y, 4).bool(), torch.inf).amin(1)
    eps = float(distance.median().detach())
    assert torch.equal(certified(model, x, y, eps), distance > eps)


def test_ibp_says_what_it_cannot_bound():
    x, y = batch(2)
    with pytest.raises(UnsupportedError, match="no bounds of BatchNorm2d"):
        IBP().loss(net(), x, y, THREAT, rng(2))
    with pytest.raises(UnsupportedError, match="Linf only"):
        IBP().loss(plain_net(), x.expand(-1, 2, -1, -1), y, Lp(Norm.L2, 0.1), rng(2))
    with pytest.raises(UnsupportedError, match="end in a linear one"):
        IBP().loss(nn.Sequential(nn.Flatten(), nn.ReLU()), x, y, THREAT, rng(2))


@dataclass(frozen=True)
class Twice(Training):
    """Gives two losses a batch."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        return functional.cross_entropy(model(x), y)

    def losses(self, model, x, y, threat, rng):
        yield self.loss(model, x, y, threat, rng)
        yield self.loss(model, x, y, threat, rng)


def bands(n: int) -> Dataset:
    """Which half is brighter: by 0.4 in two weak pixels' worth everywhere, robust within 0.1."""
    y = torch.arange(n) % 2
    x = 0.3 + 0.1 * torch.rand(n, 1, 6, 6, generator=stream(3))
    x[:, :, :3] += 0.35 * (1 - y)[:, None, None, None]
    x[:, :, 3:] += 0.35 * y[:, None, None, None]
    return Dataset(x, y)


def trained(defense: Training, tmp_path, epochs: int = 6) -> nn.Module:
    def build() -> Classifier:
        layers = (nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
        return Classifier(nn.Sequential(*layers))

    recipe = Recipe(
        arch="-", data="-", eps=0.1, epochs=epochs, batch_size=32, lr=0.05, warmup=0.5, ema=0.5
    )
    checkpoint = tmp_path / "point"
    return train(recipe, build, defense, bands(256), checkpoint, lambda _: None)[0].model


@pytest.mark.parametrize(
    "spec", ["fast-at", "free-at?replays=3", "trades?steps=3", "mart?steps=3", "awp", "ibp"]
)
def test_each_learns_to_withstand(spec, tmp_path):
    defense = load_defense(spec)
    assert isinstance(defense, Training)
    model, data = trained(defense, tmp_path), bands(64)
    adv = PGDAT(steps=10).search(model, data.x, data.y, THREAT, rng(64))
    assert float((model(adv).argmax(1) == data.y).double().mean()) > 0.9
    if spec == "ibp":
        assert float(certified(model, data.x, data.y, 0.1).double().mean()) > 0.9


def test_the_trainer_moves_after_each_loss(tmp_path):
    twice = trained(Twice(), tmp_path, epochs=1)
    (tmp_path / "point").unlink()
    once = trained(load_defense("standard"), tmp_path, epochs=1)
    x, y = bands(64).x, bands(64).y
    losses = [float(functional.cross_entropy(m(x), y).detach()) for m in (twice, once)]
    assert losses[0] < 0.95 * losses[1]
