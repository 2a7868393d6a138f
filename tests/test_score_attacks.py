"""SimBA, NES, bandits and one pixel against models whose gradient and weak spots are known."""

import math
from dataclasses import replace

import pytest
import torch
from rbl_attacks.bandits import Bandits
from rbl_attacks.nes import NES
from rbl_attacks.one_pixel import OnePixel
from rbl_attacks.simba import Basis, SimBA, _cosines
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Attack,
    Classifier,
    Dataset,
    Lp,
    Norm,
    Rng,
    Targeted,
    UnsupportedError,
    evaluate,
    load_data,
    load_model,
)
from robustbench_lite.goal import Choice
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.testing.models import (
    DecisionsOnly,
    Linear,
    Recorder,
    ScoresOnly,
    generator,
    linear_problem,
    signed_weights,
)


def flat_problem(n: int, components: int, classes: int = 2) -> tuple[Linear, Tensor, Tensor]:
    """Images (N, 1, 1, D) of class 0 well inside the box, and where class 0's margin falls."""
    weight = signed_weights(classes, components, 11)
    x = 0.4 + 0.2 * torch.rand(n, 1, 1, components, generator=generator(12))
    return Linear(weight), x, weight[1] - weight[0]


def asking(model: nn.Module, threat: Lp, x: Tensor, classes: int) -> Oracle[Lp]:
    y = torch.zeros(len(x), dtype=torch.long)
    return Oracle(Passes(Classifier(model)), threat, x, y, classes)


class Confident(Linear):
    """As Linear, with class 0 so far ahead that nothing fools it."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 30 * nn.functional.one_hot(torch.zeros(len(x)).long(), logits.shape[1])


def walked(attack: Attack, oracle: Oracle[Lp], steps: int) -> list[Tensor]:
    """Where each slot stands at each step, with a model that is never fooled."""
    keys = torch.arange(len(oracle.x)) + 77
    state = attack.start(oracle, oracle.x, oracle.y, Rng(keys))
    places = [state.adv]
    for step in range(1, steps + 1):
        rng = Rng(keys, torch.full_like(keys, step))
        state = attack.step(oracle, oracle.x, oracle.y, rng, state)
        places.append(state.adv)
    return [*places, state]


@pytest.mark.parametrize("basis", list(Basis))
def test_simba_goes_along_the_right_signs_only(basis: Basis) -> None:
    """After a round every coordinate has moved by whole steps and in the right direction."""
    model, x, slope = flat_problem(5, 16)
    model = Confident(model.weight.detach())
    attack = SimBA(step_size=0.01, basis=basis, frequencies=1.0)
    oracle = asking(model, Lp(Norm.L2, 1.0), x, 2)
    state = walked(attack, oracle, 2 * 16 + 1)[-1]
    move = (state.best - x).flatten(1)
    along = slope
    if basis is Basis.DCT:
        waves = _cosines(16, x)
        assert torch.allclose(waves @ waves.T, torch.eye(16), atol=1e-5)
        move, along = move @ waves.T, waves @ slope
    assert torch.equal(move.sign(), along.sign().expand_as(move))
    steps = move.abs() / 0.01
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert float(steps.min()) > 0.99


def test_simba_needs_one_or_two_queries_a_direction() -> None:
    model, x, slope = flat_problem(1, 16)
    recorder = Recorder(Confident(model.weight.detach()), keep=True)
    threat = Lp(Norm.LINF, 0.05, Access.SCORES, queries=17 + int((slope < 0).sum()))
    data = Dataset(x, torch.zeros(1, dtype=torch.long))
    outcome = evaluate(recorder, SimBA(), threat, data)
    assert outcome.records[0].queries == threat.queries
    seen = torch.cat(recorder.seen)[2:] - x
    assert torch.equal(seen[0], seen[0] * 0)
    final = seen.flatten(1)[-1]
    assert torch.allclose(final, 0.05 * slope.sign(), atol=1e-6)


def test_simba_shortens_its_moves_where_a_round_gains_nothing_and_then_ends() -> None:
    """On the sphere of eps a move of eps is too long to come near the best direction."""
    model, x, slope = flat_problem(3, 16)
    sure, threat = Confident(model.weight.detach()), Lp(Norm.L2, 0.1)
    state = walked(SimBA(), asking(sure, threat, x, 2), 1000)[-1]
    move = (state.best - x).flatten(1)
    assert float(torch.cosine_similarity(move, slope.expand_as(move), dim=1).min()) > 0.995
    assert bool(state.done.all())
    outcome = evaluate(sure, SimBA(), threat, Dataset(x, torch.zeros(3, dtype=torch.long)))
    assert max(record.queries for record in outcome.records) < 1000


@pytest.mark.parametrize(("components", "pairs"), [(36, 25), (100, 25), (400, 50)])
def test_the_gradient_of_nes_is_as_near_the_true_one_as_theory_says(
    components: int, pairs: int
) -> None:
    """With m pairs in d dimensions the cosine is near sqrt(m / (m + d + 1))."""
    model, x, slope = flat_problem(40, components)
    oracle = asking(Confident(model.weight.detach()), Lp(Norm.L2, 0.1), x, 2)
    state = walked(NES(probes=2 * pairs, sigma=0.01), oracle, 1)[-1]
    found = state.momentum.flatten(1)
    cosine = torch.cosine_similarity(found, slope.expand_as(found), dim=1)
    theory = math.sqrt(pairs / (pairs + components + 1))
    error = float(cosine.std()) / 40**0.5
    assert abs(float(cosine.mean()) - theory) < 4 * error + 0.02
    assert float(cosine.mean()) > 10 / components**0.5 / 40**0.5  # chance has this deviation


class Curved(Confident):
    """As Confident, with a bowl around `middle` on top."""

    middle: Tensor

    def forward(self, x: Tensor) -> Tensor:
        bowl = 200 * (x.flatten(1) - self.middle).square().sum(1)
        return super().forward(x) + torch.stack([bowl, bowl * 0], 1)


def test_the_probes_of_nes_cancel_what_is_even() -> None:
    model, x, _ = flat_problem(1, 36)
    bowl = Curved(model.weight.detach())
    bowl.middle = x[0].flatten()
    attack = NES(sigma=0.01)
    straight, curved = (
        walked(attack, asking(m, Lp(Norm.L2, 0.1), x, 2), 1)[-1].momentum
        for m in (Confident(model.weight.detach()), bowl)
    )
    assert torch.allclose(straight, curved, atol=1e-4)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_belief_of_bandits_turns_to_the_true_gradient(norm: Norm, classes: int) -> None:
    components = 36
    model, x, _ = flat_problem(40, components, classes)
    weight = model.weight.detach()
    with torch.no_grad():
        weight[2:] = weight[1:2] * 0  # so that class 1 is the one to go to
    model = Confident(weight)
    oracle = asking(model, Lp(norm, 0.05), x + 0.1 * (weight[1] - weight[0]), classes)
    slope = (weight[1] - weight[0]).expand(40, -1)
    means = []
    for steps in (1, 30, 300):
        state = walked(Bandits(), oracle, steps)[-1]
        prior = state.prior.flatten(1)
        means.append(float(torch.cosine_similarity(prior, slope, dim=1).mean()))
    # One probe in d dimensions has a cosine of sqrt(2 / (pi d)) with the gradient.
    assert means[0] == pytest.approx(math.sqrt(2 / (math.pi * components)), abs=0.06)
    assert means[0] < means[1] < means[2]
    assert means[1] > 0.5
    assert means[2] > 0.8


def test_a_tile_of_bandits_has_one_value() -> None:
    x = 0.5 * torch.ones(3, 2, 5, 7)
    model = Confident(signed_weights(2, 70, 1))
    state = walked(Bandits(tile=3), asking(model, Lp(Norm.LINF, 0.05), x, 2), 4)[-1]
    assert state.prior.shape == (3, 2, 2, 3)
    move = (state.adv - x).sign()
    assert bool((move[:, :, :3, :3] == move[:, :, :1, :1]).all())
    assert bool((move[:, :, 3:, 6:] == move[:, :, 3:4, 6:]).all())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("attack", [NES(steps=30), Bandits(steps=200), SimBA(steps=300)], ids=str)
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_two_classes_and_any_scale_of_logits_are_no_obstacle(
    attack: Attack, norm: Norm, scale: float
) -> None:
    threat = Lp(norm, {Norm.LINF: 0.02, Norm.L2: 0.1}[norm])
    problem = linear_problem(threat, [0.4, 0.5, 0.6, 0.7] * 5)
    scaled = Classifier(
        ScoresOnly(Linear(problem.model.weight.detach(), scale)), access=Access.SCORES
    )
    outcome = evaluate(scaled, attack, replace(threat, access=Access.SCORES), problem.data)
    assert outcome.robust_accuracy <= 0.1


EVERY: list[tuple[Attack, Lp, int]] = [
    (SimBA(), Lp(Norm.L2, 0.05), 1),
    (NES(probes=10), Lp(Norm.LINF, 0.01), 11),
    (Bandits(), Lp(Norm.LINF, 0.01), 3),
    (OnePixel(population=7), Lp(Norm.L0, 1), 7),
]


@pytest.mark.parametrize(("attack", "threat", "each"), EVERY, ids=str)
def test_queries_end_at_the_cap(attack: Attack, threat: Lp, each: int) -> None:
    x = 0.4 + 0.2 * torch.rand(3, 1, 4, 4, generator=generator(5))
    data = Dataset(x, torch.zeros(3, dtype=torch.long))
    for cap in (1, each, each + 1, 5 * each - 1):
        recorder = Recorder(Confident(signed_weights(2, 16, 2)))
        outcome = evaluate(recorder, attack, replace(threat, queries=cap), data)
        assert [record.queries for record in outcome.records] == [cap] * 3
        assert recorder.rows == 6 + 3 * cap  # the clean pass and the look for randomness
    recorder = Recorder(Confident(signed_weights(2, 16, 2)))
    outcome = evaluate(recorder, replace(attack, steps=4), threat, data)
    assert [record.queries for record in outcome.records] == [4 * each + 1] * 3  # the last look


@pytest.mark.parametrize(("attack", "threat", "each"), EVERY, ids=str)
def test_a_class_is_reached_where_there_is_a_way(attack: Attack, threat: Lp, each: int) -> None:
    data, model = load_data("digits").take(range(12)), load_model("digits-cnn")
    eps = {Norm.L2: 2.5, Norm.LINF: 0.4, Norm.L0: 20}[threat.norm]
    wide = Lp(threat.norm, eps, Access.SCORES, queries=2000)
    outcome = evaluate(model, attack, wide, data, goal=Targeted(Choice.NEXT))
    lost = torch.tensor([r.correct and not r.robust for r in outcome.records])
    assert int(lost.sum()) >= 4
    with torch.no_grad():
        labels = model(outcome.adversarials[lost]).argmax(1)
    assert torch.equal(labels, (data.y[lost] + 1) % 10)


@pytest.mark.parametrize(("attack", "threat", "each"), EVERY, ids=str)
def test_labels_are_not_enough(attack: Attack, threat: Lp, each: int) -> None:
    model, x, _ = flat_problem(2, 16)
    data = Dataset(x, torch.zeros(2, dtype=torch.long))
    labels_only = Classifier(DecisionsOnly(model), access=Access.DECISIONS)
    with pytest.raises(UnsupportedError, match="needs scores"):
        evaluate(labels_only, attack, threat, data)
