"""The training engine: rates, averages, augmentation, and which epoch is kept."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Classifier, Dataset, InputError, load_defense
from robustbench_lite.augment import augmented
from robustbench_lite.card import Recipe
from robustbench_lite.defense import Training
from robustbench_lite.rng import Rng
from robustbench_lite.schedule import blend, decay_of, optimizer_of, rate
from robustbench_lite.train import Probe, Progress, held_out, train


def recipe(**fields: object) -> Recipe:
    usual = {"arch": "-", "data": "-", "epochs": 6, "batch_size": 32, "lr": 0.05, "ema": 0.5}
    return Recipe.model_validate(usual | fields)


def rng(n: int) -> Rng:
    return Rng(torch.arange(n))


def test_rates_follow_their_schedules() -> None:
    def rates(schedule: str) -> list[float]:
        return [rate(recipe(lr=1.0, schedule=schedule), done) for done in (0, 0.2, 0.5, 0.8, 1)]

    assert rates("constant") == [1] * 5
    assert rates("steps") == [1, 1, 0.1, 0.01, 0.01]
    cosine = [0.5 * (1 + math.cos(math.pi * done)) for done in (0, 0.2, 0.5, 0.8, 1)]
    assert rates("cosine") == pytest.approx(cosine)
    assert rates("one-cycle") == pytest.approx(
        [0.01, 1, 0.5 * (1 + math.cos(math.pi * 0.375)), 0.5 * (1 + math.cos(math.pi * 0.75)), 0]
    )


def test_only_what_is_to_be_learned_is_moved_and_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        optimizer = optimizer_of(model, recipe(optimizer=name, weight_decay=0.1))
        assert isinstance(optimizer, kind)
        decayed, others = optimizer.param_groups
        assert [tuple(p.shape) for p in decayed["params"]] == [(2, 4)]
        assert [tuple(p.shape) for p in others["params"]] == [(4,), (4,), (2,)]
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_the_last_epochs() -> None:
    chosen, batches = recipe(average="swa", epochs=6), 4
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    seen: list[float] = []
    for move in range(6 * batches):
        with torch.no_grad():
            model.weight.fill_(float(move))
        decay = decay_of(chosen, move, batches)
        if decay is not None:
            blend(average, model, decay)
        if (move + 1) % batches == 0 and move + 1 >= 3 * batches:
            seen.append(float(move))
        if move + 1 <= 3 * batches:
            assert (
                float(average.weight.detach()) == move
            )  # until half of the run it follows the weights
    assert float(average.weight.detach()) == pytest.approx(sum(seen) / len(seen))
    assert len(seen) == 4


def test_ema_starts_as_a_plain_mean() -> None:
    decays = [decay_of(recipe(ema=0.9), move, 4) for move in (0, 1, 100)]
    assert decays == pytest.approx([1 / 2, 2 / 3, 0.9])


def test_cutout_blots_out_one_square_about_a_pixel_of_the_image() -> None:
    ones = torch.ones(300, 2, 12, 10)
    seen = augmented(ones, rng(300), recipe(cutout=4))
    gone = seen == 0
    assert torch.equal(gone[:, 0], gone[:, 1])
    area = gone[:, 0].sum((1, 2))
    assert int(area.max()) == 16
    assert int(area.min()) == 4  # about a corner only a quarter is inside
    rows, columns = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
    assert torch.equal(rows * columns, area)
    assert torch.equal(augmented(ones[:5], rng(5), recipe(cutout=4)), seen[:5])
    assert torch.equal(augmented(ones, rng(300), recipe()), ones)


def halves(n: int) -> Dataset:
    """Which half is brighter."""
    y = torch.arange(n) % 2
    x = 0.3 + 0.3 * torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    x[:, :, :3] += 0.1 * (1 - y)[:, None, None, None]
    x[:, :, 3:] += 0.1 * y[:, None, None, None]
    return Dataset(x, y)


def run(
    chosen: Recipe, folder: Path, probe: Probe | None, report: Callable[[Progress], None]
) -> Classifier:
    def build() -> Classifier:
        return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)))

    standard = load_defense("standard")
    assert isinstance(standard, Training)
    return train(chosen, build, standard, halves(200), folder / "point", report, probe)[0]


def scripted(robust: list[float], seen: list[Tensor]) -> Probe:
    """A probe that answers from a list and remembers the weights that it was shown."""

    def probe(classifier: Classifier, data: Dataset) -> tuple[float, float]:
        assert len(data) == 40
        seen.append(next(classifier.parameters()).detach().clone())
        return 0.9, robust[len(seen) - 1]

    return probe


def test_held_out_samples_are_never_learned_from() -> None:
    data = halves(200)
    doubled = Dataset(torch.cat([data.x, data.x[:50]]), torch.cat([data.y, data.y[:50]]))
    learned, watched = held_out(doubled, 40, 0)
    assert len(watched) == 40
    seen = {image.numpy().tobytes() for image in watched.x}
    assert not seen & {image.numpy().tobytes() for image in learned.x}
    assert len(learned) >= 250 - 2 * 40
    with pytest.raises(InputError, match="150 held-out samples leave 50 of 200"):
        held_out(data, 150, 0)


def test_the_epoch_that_was_best_on_the_held_out_samples_is_kept(tmp_path) -> None:
    seen: list[Tensor] = []
    told: list[Progress] = []
    probe = scripted([0.1, 0.3, 0.5, 0.45, 0.4, 0.5], seen)
    model = run(recipe(holdout=40), tmp_path, probe, told.append)
    assert torch.equal(next(model.parameters()), seen[2])
    assert not torch.equal(seen[2], seen[5])
    over = [p for p in told if p.epoch_over]
    assert [p.robust for p in over] == [0.1, 0.3, 0.5, 0.45, 0.4, 0.5]
    assert [p.clean for p in over] == [0.9] * 6
    assert not any(p.stopped for p in over)


@pytest.mark.parametrize(
    ("robust", "fields", "epochs", "why"),
    [
        ([0.2, 0.5, 0.29, 0.6], {}, 3, "fell from 0.500 to 0.290 (catastrophic overfitting)"),
        ([0.5, 0.4, 0.45, 0.6], {"patience": 2}, 3, "has not risen for 2 epochs"),
    ],
)
def test_a_run_ends_when_robustness_collapses_or_rests(
    robust, fields, epochs, why, tmp_path
) -> None:
    seen: list[Tensor] = []
    told: list[Progress] = []
    chosen = recipe(holdout=40, **fields)
    model = run(chosen, tmp_path, scripted(robust, seen), told.append)
    assert len(seen) == epochs
    assert why in told[-1].stopped
    assert torch.equal(next(model.parameters()), seen[robust.index(max(robust[:epochs]))])
    # Started again, it knows that it has ended.
    again = run(chosen, tmp_path, scripted([], []), told.append)
    assert torch.equal(next(again.parameters()), next(model.parameters()))


def test_killed_between_epochs_it_remembers_the_best_one(tmp_path) -> None:
    robust, seen = [0.1, 0.6, 0.5, 0.55, 0.5, 0.5], []
    whole = run(recipe(holdout=40, average="swa"), tmp_path, scripted(robust, seen), lambda _: None)
    (tmp_path / "point").unlink()

    def dies(progress: Progress) -> None:
        if progress.epoch == 3 and progress.epoch_over:
            raise KeyboardInterrupt

    chosen, first, second = recipe(holdout=40, average="swa"), [], []
    with pytest.raises(KeyboardInterrupt):
        run(chosen, tmp_path, scripted(robust, first), dies)
    resumed = run(chosen, tmp_path, scripted(robust[3:], second), lambda _: None)
    assert (len(first), len(second)) == (3, 3)
    assert torch.equal(next(resumed.parameters()), next(whole.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(seen, first + second, strict=True))


def test_dropout_draws_the_same_after_a_resume(tmp_path) -> None:
    def build() -> Classifier:
        return Classifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2)))

    def learn(folder: Path, report: Callable[[Progress], None]) -> Tensor:
        standard = load_defense("standard")
        assert isinstance(standard, Training)
        model, _ = train(recipe(), build, standard, halves(200), folder / "point", report)
        return next(model.parameters())

    def dies(progress: Progress) -> None:
        if progress.epoch == 2 and progress.epoch_over:
            raise KeyboardInterrupt

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = learn(tmp_path / "a", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "b", dies)
    torch.rand(7)
    assert torch.equal(learn(tmp_path / "b", lambda _: None), whole)


def test_fast_at_holds_samples_out_unless_told_otherwise(forked_rbl, tmp_path) -> None:
    small = (
        *("train", "--arch", "cnn", "--arch-set", "width=4", "--arch-set", "hidden=16"),
        *("--data", "digits", "--defense", "fast-at", "--eps", 0.1, "--epochs", 1, "--n", 20),
        *("--check-set", "steps=2", "--probe-set", "steps=2", "--out", "f.safetensors"),
    )
    done = forked_rbl(*small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ", held out: clean " in done.stderr
    assert "holdout = 500" in (tmp_path / "f.toml").read_text()
    done = forked_rbl(*small, "--holdout", 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held out" not in done.stderr
    assert "holdout = 0" in (tmp_path / "f.toml").read_text()
