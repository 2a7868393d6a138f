"""Training in several processes: real ones, started by torchrun."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import _environment
from safetensors.torch import load_file
from torch import nn

from robustbench_lite.card import read_card
from robustbench_lite.models import untrained
from robustbench_lite.team import Team

# No batch norm: its statistics are those of a process's own share.
RECIPE = (
    *("--arch", "lenet", "--data", "digits", "--epochs", 2, "--batch-size", 200, "--lr", 2.0),
    *("--schedule", "constant"),
    *("--n", 50, "--eps", 0.1, "--defense", "pgd-at", "--set", "steps=2", "--augment", "crop"),
    *("--check-set", "steps=3"),
)


def together(folder: Path, processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    rbl = str(Path(sys.executable).with_name("rbl"))
    return subprocess.run(
        [*run, "--nproc-per-node", str(processes), "--", rbl, "train", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=_environment({"OMP_NUM_THREADS": "1"}),
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    done = together(folder, 2, *RECIPE, "--out", "two.safetensors")
    assert done.returncode == 0, done.stderr
    assert {f.name for f in folder.iterdir()} == {"two.safetensors", "two.toml"}
    epochs = [line for line in done.stderr.splitlines() if line.startswith("two: epoch")]
    assert len(epochs) == 2  # one of the two reports
    assert done.stdout.count("two on digits") == 1
    return folder


def test_two_processes_learn_what_one_learns(pair, rbl):
    done = rbl("train", *RECIPE, "--out", "one.safetensors", cwd=pair)
    assert done.returncode == 0, done.stderr
    alone, shared = load_file(pair / "one.safetensors"), load_file(pair / "two.safetensors")
    assert alone.keys() == shared.keys()
    card = read_card(pair / "two.toml")
    torch.manual_seed(card.recipe.seed)
    start = untrained(card.recipe, 10, 1, 8, "start").model.state_dict()
    moved = max(float((start[name] - weight).abs().max()) for name, weight in alone.items())
    apart = max(float((shared[name] - weight).abs().max()) for name, weight in alone.items())
    assert moved > 0.1
    assert apart < 0.01 * moved


def test_the_recipe_says_how_many_there_were_and_asks_for_as_many(pair, forked_rbl):
    assert read_card(pair / "two.toml").recipe.processes == 2
    done = forked_rbl("train", "--recipe", "two.toml", "--out", "again.safetensors", cwd=pair)
    assert done.returncode == 2
    assert "torchrun --nproc-per-node 2" in done.stderr
    assert not (pair / "again.safetensors").exists()


def test_shares_are_apart_and_whole():
    index = torch.arange(10, 17)
    shares = [Team(rank, 3).share(index) for rank in range(3)]
    assert sorted(torch.cat([own for own, _ in shares]).tolist()) == index.tolist()
    assert [count for _, count in shares] == [3, 2, 2]
    few = [Team(rank, 3).share(index[:2]) for rank in range(3)]
    assert [(own.tolist(), count) for own, count in few] == [([10], 1), ([11], 1), ([10], 0)]


def _averages(rank: int, folder: str) -> None:
    from torch import distributed

    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    net = nn.BatchNorm1d(2)
    assert net.running_mean is not None
    net.running_mean.fill_(rank)
    net.weight.grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    team = Team(rank, 2)
    team.average_gradients(net.parameters(), (3, 1)[rank])
    team.average_buffers(net)
    team.part()
    # The means of one and two with the weights 3 and 1, and of zero and one.
    expected = {"weight": [1.25, 2.5], "mean": [0.5, 0.5]}
    got = {"weight": net.weight.grad.tolist(), "mean": net.running_mean.tolist()}
    Path(folder, f"{rank}.txt").write_text(str(got == expected))


def test_gradients_are_weighed_by_samples_and_statistics_are_averaged(tmp_path):
    torch.multiprocessing.spawn(_averages, (str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["True", "True"]


def test_tensorboard_gets_each_epochs_figures(forked_rbl, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = forked_rbl(
        *("train", *RECIPE, "--holdout", 100, "--out", "x.safetensors", "--tensorboard", "curves"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    events = accumulator.EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    told = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    assert {name: [e.step for e in curve] for name, curve in told.items()} == {
        "training/loss": [1, 2],
        "held out/clean accuracy": [1, 2],
        "held out/robust accuracy": [1, 2],
    }
    lines = [line for line in done.stderr.splitlines() if "epoch" in line]
    for line, event in zip(lines, told["training/loss"], strict=True):
        assert f"loss {event.value:.3f}" in line


def test_a_folder_for_curves_that_cannot_be_made_is_refused(forked_refused, tmp_path):
    (tmp_path / "file").write_text("")
    said = forked_refused("train", *RECIPE, "--out", "x.safetensors", "--tensorboard", "file/sub")
    assert "--tensorboard file/sub" in said
