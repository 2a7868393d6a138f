import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_lite import Split, load_data, load_model
from robustbench_lite.stats import wilson

N = 60
ATTACK = ("attack", "--model", "digits-cnn-at", "--n", N)
KEYS = {
    *("model", "attack", "threat", "goal", "data", "n", "seed", "clean_accuracy", "clean_ci95"),
    *("robust_accuracy", "robust_ci95", "mean_size", "median_size", "queries_per_sample"),
    *("precision", "seconds", "trust", "doubts", "samples", "versions"),
}


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(), parse_constant=no_constant)


def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def attacked(rbl, tmp_path_factory):
    """One run with three attacks, from the command line to its files."""
    folder = tmp_path_factory.mktemp("attacked")
    done = rbl(
        *(*ATTACK, "-a", "fgsm", "-a", "pgd", "-a", "pgd", "--seed", 3),
        *("--json", "out.json", "--save-adversarials", "out.npz"),
        cwd=folder,
        COLUMNS="80",
    )
    assert done.returncode == 0, done.stderr
    assert {f.name for f in folder.iterdir()} == {"out.json", "out.npz"}
    return done.stdout, read(folder / "out.json"), dict(np.load(folder / "out.npz"))


def test_the_json_has_one_entry_an_attack_with_the_promised_keys(attacked):
    _, entries, _ = attacked
    assert [e["attack"].split("(")[0] for e in entries] == ["FGSM", "PGD", "PGD"]
    for entry in entries:
        assert set(entry) == KEYS
        assert entry["model"] == "digits-cnn-at"
        assert entry["data"] == "digits"
        assert (entry["n"], entry["seed"], entry["goal"]) == (N, 3, "untargeted")
        # The defaults are the card's.
        assert (entry["threat"]["norm"], entry["threat"]["eps"]) == ("linf", 0.15)
        assert set(entry["versions"]) == {
            *("python", "robustbench-lite", "torch", "torchvision", "numpy")
        }
        for sample in entry["samples"]:
            assert set(sample) == {"id", "correct", "robust", "size", "gap", "queries", "error"}


def test_the_figures_follow_from_the_samples(attacked):
    _, entries, _ = attacked
    for entry in entries:
        samples = entry["samples"]
        assert len(samples) == len({s["id"] for s in samples}) == N
        robust = sum(s["robust"] for s in samples)
        sizes = [s["size"] for s in samples if s["correct"] and s["size"] is not None]
        assert 0 < robust < sum(s["correct"] for s in samples) < N
        assert entry["clean_accuracy"] == sum(s["correct"] for s in samples) / N
        assert entry["robust_accuracy"] == robust / N
        assert entry["robust_ci95"] == list(wilson(robust, N))
        assert entry["mean_size"] == pytest.approx(np.mean(sizes))
        assert entry["median_size"] == pytest.approx(np.median(sizes))
        spent = [s["queries"] for s in samples if s["correct"]]
        assert entry["queries_per_sample"] == pytest.approx(np.mean(spent))
        assert all(s["queries"] == 0 for s in samples if not s["correct"])
        assert len(sizes) == sum(s["correct"] and not s["robust"] for s in samples)
        assert max(sizes) <= 0.15 + 1e-6


def test_the_last_row_is_the_worst_case_of_each_sample(attacked):
    stdout, entries, _ = attacked
    rows = stdout.splitlines()
    assert [row.split("  ")[0] for row in rows[2:]] == ["fgsm", "pgd", "pgd", "worst case"]
    by_attack = zip(*(e["samples"] for e in entries), strict=True)
    worst = sum(all(s["robust"] for s in sample) for sample in by_attack)
    figures = [re.findall(r"[\d.]+", row) for row in rows[2:]]
    shares = [e["robust_accuracy"] for e in entries] + [worst / N]
    assert [row[1] for row in figures] == [f"{100 * share:.1f}" for share in shares]
    assert [row[0] for row in figures] == [f"{100 * entries[0]['clean_accuracy']:.1f}"] * 4
    low, high = wilson(worst, N)
    assert f"{100 * low:.1f}-{100 * high:.1f}" in rows[-1]
    assert rows[0].rstrip() == "digits-cnn-at on digits, 60 samples, linf 0.15, seed 3"


def test_the_saved_floats_are_adversarial_examples(attacked):
    _, entries, saved = attacked
    samples = list(zip(*(e["samples"] for e in entries), strict=True))
    broken = np.array([s[0]["correct"] and not all(e["robust"] for e in s) for s in samples])
    assert saved["ids"].tolist() == [s[0]["id"] for s in samples]
    assert np.array_equal(saved["adversarial"], broken)
    known = load_data("digits").sample(N, 3)
    assert np.array_equal(saved["y"], known.y.numpy())
    found = torch.from_numpy(saved["x_float"])
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    distance = (found.double() - known.x.double()).abs().flatten(1).amax(1).numpy()
    assert np.all(distance <= 0.15 + 1e-6)
    assert np.all(distance[~broken] == 0)
    with torch.no_grad():
        fooled = (load_model("digits-cnn-at")(found).argmax(1) != known.y).numpy()
    assert np.array_equal(fooled, broken | ~np.array([s[0]["correct"] for s in samples]))


@pytest.fixture
def as_bytes(tmp_path):
    """Digits as 8-bit files hold them: NHWC and NHW."""
    data = load_data("digits").take(range(N))
    x, y = (data.x * 255).round().to(torch.uint8)[:, 0].numpy(), data.y.numpy()
    np.savez(tmp_path / "nhw.npz", x=x, y=y)
    np.savez(tmp_path / "nhwc.npz", x_test=x[..., None], y_test=y)
    return tmp_path


def test_saved_bytes_are_data_again_and_agree_with_their_flags(forked_rbl, as_bytes):
    run = ("attack", "-m", "digits-cnn")
    first = forked_rbl(
        *(*run, "-a", "pgd", "-d", "npz:nhw.npz", "--eps", "32/255"),
        *("--json", "first.json", "--save-adversarials", "adv.npz"),
        cwd=as_bytes,
    )
    assert first.returncode == 0, first.stderr
    assert "npz:nhw.npz, 60 samples, linf 32/255, seed 0" in first.stdout
    # The same images in the other layout are the same samples.
    layout = (*run, "-a", "pgd", "-d", "npz:nhwc.npz", "--eps", "32/255", "--json", "nhwc.json")
    assert forked_rbl(*layout, cwd=as_bytes).returncode == 0
    (entry,) = read(as_bytes / "first.json")
    assert read(as_bytes / "nhwc.json")[0]["samples"] == entry["samples"]

    saved = np.load(as_bytes / "adv.npz")
    assert saved["x"].dtype == np.uint8
    assert saved["x"].shape == (N, 8, 8, 1)
    original = np.load(as_bytes / "nhw.npz")["x"].astype(int)
    assert np.abs(saved["x"][..., 0].astype(int) - original).max() == 32
    correct = np.array([s["correct"] for s in entry["samples"]])
    flags = saved["adversarial_8bit"]
    assert 0.9 * saved["adversarial"].sum() <= flags.sum() <= saved["adversarial"].sum()
    again = (*run, "-a", "fgsm", "-d", "npz:adv.npz", "--eps", "0", "--json", "again.json")
    assert forked_rbl(*again, cwd=as_bytes).returncode == 0
    (second,) = read(as_bytes / "again.json")
    assert [s["correct"] for s in second["samples"]] == (correct & ~flags).tolist()
    # Nothing can be done within eps = 0.
    assert second["robust_accuracy"] == second["clean_accuracy"]


def test_a_run_is_repeated_exactly_and_batches_change_nothing(forked_rbl, tmp_path):
    run = (*ATTACK, "-a", "pgd", "--restarts", 2, "--set", "steps=5", "--set", "step_size=0.3")
    assert forked_rbl(*run, "--json", "a.json", cwd=tmp_path).returncode == 0
    assert forked_rbl(*run, "--json", "b.json", cwd=tmp_path).returncode == 0
    (first,) = timeless(read(tmp_path / "a.json"))
    assert [first] == timeless(read(tmp_path / "b.json"))
    expected = r"Restarts\(PGD\(steps=5, step_size=0.3, .*\), 2\)"
    assert re.fullmatch(expected, first["attack"])
    # 1 query for each step, 5 steps, 2 restarts, and those of the start and the end.
    most = max(s["queries"] for s in first["samples"])
    assert 10 <= most <= 14

    assert forked_rbl(*run, "--exact", "--json", "c.json", cwd=tmp_path).returncode == 0
    narrow = (*run, "--exact", "--batch-size", 7, "--json", "d.json")
    assert forked_rbl(*narrow, cwd=tmp_path).returncode == 0
    wide, small = read(tmp_path / "c.json")[0], read(tmp_path / "d.json")[0]
    assert [s["robust"] for s in wide["samples"]] == [s["robust"] for s in small["samples"]]


@pytest.mark.parametrize("target", ["next", "random", "4"])
def test_a_targeted_attack_reaches_its_class(forked_rbl, tmp_path, target):
    done = forked_rbl(
        *("attack", "-m", "digits-cnn", "--n", N, "-a", "pgd", "--eps", "0.4"),
        *("--targeted", target, "--json", "out.json", "--save-adversarials", "out.npz"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (entry,) = read(tmp_path / "out.json")
    assert entry["goal"] == f"targeted {target}"
    assert f"targeted {target}" in done.stdout
    saved = np.load(tmp_path / "out.npz")
    broken, y = saved["adversarial"], saved["y"]
    assert broken.sum() > N / 4
    with torch.no_grad():
        reached = load_model("digits-cnn")(torch.from_numpy(saved["x_float"])).argmax(1).numpy()
    if target == "next":
        assert np.array_equal(reached[broken], (y[broken] + 1) % 10)
    elif target == "4":
        assert set(reached[broken]) == {4}
        assert not broken[y == 4].any()
    else:
        assert len(set((reached[broken] - y[broken]) % 10)) > 5


def test_another_norm_and_an_attack_that_shrinks(rbl, tmp_path):
    run = (*ATTACK, "--norm", "l2", "--eps", "0.5", "-a", "cw", "--set", "steps=90")
    done = rbl(*run, "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = read(tmp_path / "out.json")
    assert (entry["threat"]["norm"], entry["threat"]["eps"]) == ("l2", 0.5)
    for sample in entry["samples"]:
        if sample["correct"] and sample["size"] is not None:
            assert sample["robust"] == (sample["size"] > 0.5 + 1e-6)
    sizes = [s["size"] for s in entry["samples"] if s["size"] is not None]
    assert min(sizes) < 0.5 < max(sizes)
    assert "l2 0.5" in done.stdout


def test_the_leaderboard_takes_patterns(forked_rbl, forked_refused, tmp_path):
    done = forked_rbl(
        *("bench", "--models", "digits-h*,digits-hog-rbf", "--attacks", "noise", "--n", 10),
        cwd=tmp_path,
    )
    ranked = {line.split()[1] for line in done.stdout.splitlines()[2:4]}
    assert ranked == {"digits-hog-linear", "digits-hog-rbf"}
    said = forked_refused("bench", "--models", "dogs-*", "--attacks", "noise")
    assert "'dogs-*' matches no model" in said
    said = forked_refused("bench", "--models", "cli*", "--attacks", "noise")
    assert "'cli*' matches no model" in said  # clip is no model, it loads them


def test_a_bench_ranks_by_the_worst_case(rbl, tmp_path):
    """Beside `rbl attack`, which attacks the same samples in the same way."""
    both = ("fgsm", "pgd")
    done = rbl(
        *("bench", "--models", "digits-cnn,digits-cnn-at", "--attacks", ", ".join(both)),
        *("--n", N, "--slice", 25),
        cwd=tmp_path,
        COLUMNS="80",
    )
    assert done.returncode == 0, done.stderr
    title, _, first, second = done.stdout.splitlines()
    assert title.rstrip() == "fgsm, pgd on digits, 60 samples, linf 0.15, seed 0"
    assert first.split()[:2] == ["1", "digits-cnn-at"]
    assert second.split()[:2] == ["2", "digits-cnn"]
    for row, model in ((second, "digits-cnn"), (first, "digits-cnn-at")):
        attacks = (part for name in both for part in ("--attack", name))
        rbl("attack", "-m", model, *attacks, "--n", N, "--json", "out.json", cwd=tmp_path)
        fgsm, pgd = read(tmp_path / "out.json")
        pairs = zip(fgsm["samples"], pgd["samples"], strict=True)
        worst = sum(a["robust"] and b["robust"] for a, b in pairs) / N
        shares = (fgsm["clean_accuracy"], worst, fgsm["robust_accuracy"], pgd["robust_accuracy"])
        shown = [cell for cell in row.split() if "-" not in cell]
        assert shown[1:5] == [f"{100 * share:.1f}" for share in shares]


def test_digits_that_were_learned_are_not_those_that_are_attacked(attacked):
    _, entries, _ = attacked
    assert not {s["id"] for s in entries[0]["samples"]} & set(load_data("digits", Split.TRAIN).ids)
    assert all(math.isfinite(s["queries"]) for s in entries[0]["samples"])
