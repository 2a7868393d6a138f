"""Attacks that see scores or labels only, and the noise that nobody may lose to."""

from dataclasses import replace

import pytest
import torch
from rbl_attacks.apgd import APGD
from rbl_attacks.boundary import Boundary
from rbl_attacks.hopskipjump import HopSkipJump
from rbl_attacks.mi_fgsm import unit_l1
from rbl_attacks.noise import Noise
from rbl_attacks.pgd import PGD
from rbl_attacks.rays import RayS
from rbl_attacks.square import Square
from torch import Tensor

from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Targeted,
    UnsupportedError,
    evaluate,
    load_data,
    load_model,
)
from robustbench_lite.geometry import flat_norm
from robustbench_lite.goal import Choice
from robustbench_lite.ledger import Ledger
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.exactness import Faces, halfspace_distance
from robustbench_lite.testing.models import (
    DecisionsOnly,
    Linear,
    Recorder,
    generator,
    linear_problem,
    signed_weights,
)


def plane(norm: Norm, n: int = 24, faces: int = 1) -> tuple[Faces, Dataset, Tensor]:
    """Images beside one or more planes, and the exact distance within the box."""
    weight = signed_weights(faces, 36, 5)
    x = 0.3 + 0.4 * torch.rand(n, 36, generator=generator(6))
    offset = (x @ weight.T).amax(0) + 0.1
    gaps = offset - x @ weight.T
    each = [halfspace_distance(x, weight[f], gaps[:, f], norm) for f in range(faces)]
    data = Dataset(x.reshape(-1, 1, 6, 6), torch.zeros(n, dtype=torch.long))
    return Faces(weight, offset), data, torch.stack(each).amin(0)


def asked(model: torch.nn.Module, attack: Attack, threat: Lp, x: Tensor) -> Tensor:
    recorder = Recorder(model, keep=True)
    evaluate(recorder, attack, threat, Dataset(x, torch.zeros(len(x), dtype=torch.long)))
    return torch.cat(recorder.seen)


class Never(Linear):
    """Class 0, with a margin that depends on the image."""

    def forward(self, x: Tensor) -> Tensor:
        along = x.flatten(1).square().sum(1)
        return torch.stack([along * 0, -100 - along], 1)


def test_square_reaches_every_row_and_column_and_both_signs() -> None:
    x = torch.full((1, 1, 9, 5), 0.5)
    seen = asked(Never(signed_weights(1, 1, 0)), Square(steps=400), Lp(Norm.LINF, 0.1), x)
    up, down = (seen > 0.55).any(0)[0], (seen < 0.45).any(0)[0]
    assert bool(up.all())
    assert bool(down.all())
    start = seen[2]  # after the clean pass and the look for randomness
    assert bool((start == start[:, :1]).all())  # vertical stripes
    changed = [(b != a).flatten().sum() for a, b in zip(seen[-40:-1], seen[-39:], strict=True)]
    assert max(changed) <= 2


def test_square_sides_follow_the_schedule() -> None:
    x = torch.zeros(1, 1, 32, 32)
    turns = [0, 5, 6, 30, 150, 4500]
    sides = [int(Square(steps=5000)._side(x, torch.tensor([t]))) for t in turns]
    assert sides == [29, 29, 20, 14, 10, 1]
    shares = [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 512]
    assert sides == [max(1, round((s * 1024) ** 0.5)) for s in shares]


def test_two_samples_get_squares_of_their_own() -> None:
    x = torch.full((2, 1, 8, 8), 0.5)
    x[1, 0, 0, 0] = 0.4
    recorder = Recorder(Never(signed_weights(1, 1, 0)), keep=True)
    data = Dataset(x, torch.zeros(2, dtype=torch.long))
    evaluate(recorder, Square(steps=30), Lp(Norm.LINF, 0.1), data)
    pairs = [s for s in recorder.seen[2:] if len(s) == 2]
    assert any(not torch.equal((p[0] > 0.5)[:, 1:], (p[1] > 0.5)[:, 1:]) for p in pairs)


def test_a_zero_gradient_adds_nothing_to_the_momentum() -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0] = 1e-30
    unit = unit_l1(gradient)
    assert flat_norm(unit, Norm.L1).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        (RayS(steps=400), Norm.LINF),
        (Boundary(steps=2000), Norm.L2),
        (HopSkipJump(steps=300), Norm.L2),
    ],
    ids=str,
)
def test_labels_are_enough_to_come_near_the_exact_distance(attack: Attack, norm: Norm) -> None:
    model, data, distance = plane(norm, 6)
    labels_only = Classifier(DecisionsOnly(model), access=Access.DECISIONS)
    sizes = torch.tensor(evaluate(labels_only, attack, Lp(norm), data).sizes, dtype=torch.float64)
    assert len(sizes) == len(data)
    assert bool((sizes >= distance * (1 - 1e-5)).all())
    assert float(sizes.mean() / distance.mean()) <= 1.25


@pytest.mark.parametrize("attack", [Boundary(steps=200), HopSkipJump(steps=60)], ids=str)
def test_a_targeted_attack_on_labels_starts_from_examples(attack: Attack) -> None:
    data, model = load_data("digits").take(range(6)), load_model("digits-cnn")
    goal = Targeted(Choice.NEXT)
    with pytest.raises(UnsupportedError, match="--set examples="):
        evaluate(model, attack, Lp(Norm.L2), data, goal=goal)
    outcome = evaluate(model, replace(attack, examples="digits"), Lp(Norm.L2), data, goal=goal)
    assert len(outcome.sizes) == sum(r.correct for r in outcome.records)
    first = float((load_data("digits").x[:1] - data.x).flatten(1).norm(dim=1).max())
    assert max(outcome.sizes) < first


def test_rays_cannot_reach_for_a_class() -> None:
    model, data, _ = plane(Norm.LINF, 3)
    with pytest.raises(UnsupportedError, match="no targeted form"):
        evaluate(model, RayS(), Lp(Norm.LINF), data, goal=Targeted(Choice.NEXT))


def test_asking_about_some_slots_charges_them_only() -> None:
    problem = linear_problem(Lp(Norm.LINF, 0.1), (0.01, 0.02, 0.03))
    x, y = problem.data.x, problem.data.y
    oracle = Oracle(Passes(Classifier(problem.model)), Lp(Norm.LINF, 0.1), x, y, 2)
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        expected = problem.model(x[rows].flip(0)).argmax(1) != y[rows]
    with oracle.part(rows) as some:
        assert torch.equal(some.fools(x[rows].flip(0)), expected)
    assert oracle.ledger.queries.tolist() == [1, 0, 1]
    assert isinstance(oracle.ledger, Ledger)


@pytest.mark.parametrize("model", ["digits-cnn", "digits-cnn-at"])
def test_nobody_loses_to_noise(model: str) -> None:
    data, threat = load_data("digits").take(range(120)), Lp(Norm.LINF, 0.25)
    outcome = evaluate(load_model(model), Noise(steps=50), threat, data)
    noise = outcome.robust_accuracy
    assert noise < outcome.clean_accuracy
    for attack in (PGD(steps=10), APGD(steps=10), Square(steps=200)):
        assert evaluate(load_model(model), attack, threat, data).robust_accuracy <= noise


class Rare(Linear):
    """Another class only where the first component is low: few random images are."""

    def forward(self, x: Tensor) -> Tensor:
        low = 0.05 - x.flatten(1)[:, 0]
        return torch.stack([-low, low], 1)


@pytest.mark.parametrize("attack", [Boundary(steps=120), HopSkipJump(steps=120)], ids=str)
def test_who_still_looks_for_a_start_does_not_change_the_others(attack: Attack) -> None:
    x = 0.6 + 0.3 * torch.rand(12, 1, 3, 3, generator=generator(8))
    data = Dataset(x, torch.zeros(12, dtype=torch.long))
    model = Rare(signed_weights(2, 9, 0))
    together = evaluate(model, attack, Lp(Norm.L2), data, exact=True)
    alone = [evaluate(model, attack, Lp(Norm.L2), data.take([i]), exact=True) for i in range(12)]
    assert together.records == tuple(o.records[0] for o in alone)
