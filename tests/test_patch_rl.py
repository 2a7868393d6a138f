"""Patches by reinforcement learning: it learns where and how, and keeps to its queries."""

import json

import pytest
import torch
from rbl_attacks.patch_rl import PatchRL
from torch import Tensor, nn

from robustbench_lite import (
    Access,
    Classifier,
    Dataset,
    Restarts,
    Targeted,
    UnsupportedError,
    evaluate,
    load_data,
    load_model,
)
from robustbench_lite.structured import Patch
from robustbench_lite.testing.models import DecisionsOnly, Recorder, ScoresOnly, generator


class Hidden(nn.Module):
    """Class 1 where the lower right corner is bright; the score tells how near it is to that.

    Class 2 wins where the upper left corner is bright, class 3 never.
    """

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        right = x[:, :, -3:, -3:].flatten(1).mean(1) - self.least
        left = x[:, :, :3, :3].flatten(1).mean(1) - self.least
        return torch.stack([right * 0, right, left, right * 0 - 3], 1)


def dark(n: int = 10, shape: tuple[int, int, int] = (1, 16, 16)) -> Dataset:
    x = 0.1 * torch.rand(n, *shape, generator=generator(0))
    return Dataset(x, torch.zeros(n, dtype=torch.long))


HIDDEN, SMALL = Hidden(0.9), Patch(area=9 / 256)
# 16 rows and columns, white on white: 1 of 14 * 14 places, so seldom by chance.
ATTACK = PatchRL(steps=150)


def test_the_policy_finds_a_hidden_place_more_often_than_chance() -> None:
    learned = evaluate(ScoresOnly(HIDDEN), ATTACK, SMALL, dark(20))
    blind = evaluate(HIDDEN, PatchRL(steps=150, learning_rate=1e-9), SMALL, dark(20))
    assert learned.robust_accuracy <= 0.1
    assert learned.robust_accuracy + 0.3 <= blind.robust_accuracy


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 9, 13), (2, 12, 5)], ids=str)
def test_the_learning_curve_rises_and_is_on_record(shape: tuple[int, int, int]) -> None:
    """With a model that is never fooled every move is on record."""
    never = Hidden(1.5)
    threat = Patch(area=9 / (shape[1] * shape[2]))
    outcome = evaluate(never, PatchRL(steps=60), threat, dark(8, shape))
    curves = torch.tensor([record.trace for record in outcome.records])
    assert curves.shape == (8, 60)
    mean = curves.mean(0)
    assert float(mean[-10:].mean()) > float(mean[:10].mean()) + 3 * float(mean[:10].std())
    assert int((curves[:, -10:].mean(1) > curves[:, :10].mean(1)).sum()) >= 7
    blind = evaluate(never, PatchRL(steps=60, learning_rate=1e-9), threat, dark(8, shape))
    flat = torch.tensor([record.trace for record in blind.records]).mean(0)
    assert abs(float(flat[-10:].mean() - flat[:10].mean())) < 4 * float(flat.std()) / 10**0.5


def test_the_curve_is_the_mean_margin_by_the_span_of_what_was_seen() -> None:
    data, attack = dark(1), PatchRL(steps=3, actions=4)
    recorder = Recorder(Hidden(1.5), keep=True)
    outcome = evaluate(recorder, attack, Patch(0.4), data)
    seen = torch.cat(recorder.seen)[2:14]  # after the clean pass and the look for randomness
    logits = Hidden(1.5)(seen)
    margin = logits[:, 1:].amax(1) - logits[:, 0]
    reward = margin / (logits.amax(1) - logits.amin(1))
    expected = reward.reshape(3, 4).mean(1).tolist()
    assert float(reward.std()) > 0.01
    assert outcome.records[0].trace == pytest.approx(expected, abs=1e-5)
    entry = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert entry["samples"][0]["trace"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cap", [1, 3, 4, 5, 11, 12])
def test_queries_end_at_the_cap_and_what_was_not_answered_is_not_on_record(cap: int) -> None:
    data, attack = dark(3), PatchRL(steps=20, actions=4)
    recorder = Recorder(Hidden(1.5))
    whole = evaluate(Hidden(1.5), attack, SMALL, data)
    capped = evaluate(recorder, attack, Patch(SMALL.area, queries=cap), data)
    assert [record.queries for record in capped.records] == [cap] * 3
    assert recorder.rows == 6 + 3 * cap  # the clean pass and the look for randomness
    for full, part in zip(whole.records, capped.records, strict=True):
        moves = cap // 4
        assert part.trace[:moves] == pytest.approx(full.trace[:moves], abs=1e-6)
        assert len(part.trace) == -(-cap // 4)
        assert max(part.trace) < -0.4  # an answer of zeros would be a reward of 0


def test_a_fooled_sample_stops_and_its_curve_with_it() -> None:
    outcome = evaluate(HIDDEN, ATTACK, SMALL, dark(20))
    broken = [record for record in outcome.records if not record.robust]
    assert broken
    for record in broken:
        assert record.queries == 16 * len(record.trace)
        assert len(record.trace) < ATTACK.steps


def test_the_seed_decides_and_the_company_does_not() -> None:
    data = dark(9)
    one, again, small = (
        evaluate(HIDDEN, PatchRL(steps=15), SMALL, data, batch_size=size, exact=True)
        for size in (9, 9, 2)
    )
    other = evaluate(HIDDEN, PatchRL(steps=15), SMALL, data, seed=1, exact=True)
    assert one.records == again.records == small.records
    assert [r.trace for r in one.records] != [r.trace for r in other.records]


def test_the_goal_decides_where_the_policy_goes() -> None:
    data = dark(8)
    for target, rows in ((1, slice(-3, None)), (2, slice(None, 3))):
        outcome = evaluate(HIDDEN, Restarts(ATTACK, 2), SMALL, data, goal=Targeted(target))
        assert outcome.robust_accuracy <= 0.25
        changed = (outcome.adversarials != data.x)[:, 0]
        lost = ~torch.tensor([record.robust for record in outcome.records])
        assert bool(changed[lost][:, rows, rows].any((1, 2)).all())
    assert evaluate(HIDDEN, ATTACK, SMALL, data, goal=Targeted(3)).robust_accuracy == 1.0


@pytest.mark.parametrize("shape", [(3, 10, 14), (1, 1, 9), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("area", [0.04, 0.25, 1.0])
def test_every_patch_that_is_tried_is_allowed(shape: tuple[int, int, int], area: float) -> None:
    data, threat = dark(2, shape), Patch(area)
    recorder = Recorder(Hidden(1.5), keep=True)
    evaluate(recorder, PatchRL(steps=12), threat, data)
    seen = torch.cat(recorder.seen)[4:]
    size = torch.minimum(*(threat.size(x.expand_as(seen), seen) for x in data.x[:, None]))
    allowed = max(area, 1 / (shape[1] * shape[2])) * (1 + 1e-6)
    assert bool((size <= allowed).all())
    assert float(size.min()) > 0.5 * allowed  # none is cut off at an edge


def test_labels_are_not_enough() -> None:
    labels_only = Classifier(DecisionsOnly(HIDDEN), access=Access.DECISIONS)
    with pytest.raises(UnsupportedError, match="needs scores"):
        evaluate(labels_only, ATTACK, SMALL, dark(2))


def test_on_real_images_learning_breaks_more_with_the_same_queries() -> None:
    data, model = load_data("mnist5k").take(range(50)), load_model("mnist-cnn")
    threat = Patch(area=0.04, queries=800)
    learned = evaluate(model, PatchRL(), threat, data)
    blind = evaluate(model, PatchRL(learning_rate=1e-9), threat, data)
    assert learned.robust_accuracy < blind.robust_accuracy < learned.clean_accuracy
