import json
import math
import re
import subprocess
import sys
from importlib.metadata import entry_points
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
    *("seconds", "doubts", "samples", "versions"),
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
            assert set(sample) == {"id", "correct", "robust", "size", "queries", "error"}


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
        attempted = sum(s["queries"] for s in samples) / N
        assert entry["queries_per_sample"] == pytest.approx(attempted)
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


def test_saved_bytes_are_data_again_and_agree_with_their_flags(rbl, as_bytes):
    run = ("attack", "-m", "digits-cnn")
    first = rbl(
        *(*run, "-a", "pgd", "-d", "npz:nhw.npz", "--eps", "32/255"),
        *("--json", "first.json", "--save-adversarials", "adv.npz"),
        cwd=as_bytes,
    )
    assert first.returncode == 0, first.stderr
    assert "npz:nhw.npz, 60 samples, linf 32/255, seed 0" in first.stdout
    # The same images in the other layout are the same samples.
    layout = (*run, "-a", "pgd", "-d", "npz:nhwc.npz", "--eps", "32/255", "--json", "nhwc.json")
    assert rbl(*layout, cwd=as_bytes).returncode == 0
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
    assert rbl(*again, cwd=as_bytes).returncode == 0
    (second,) = read(as_bytes / "again.json")
    assert [s["correct"] for s in second["samples"]] == (correct & ~flags).tolist()
    # Nothing can be done within eps = 0.
    assert second["robust_accuracy"] == second["clean_accuracy"]


def test_a_run_is_repeated_exactly_and_batches_change_nothing(rbl, tmp_path):
    run = (*ATTACK, "-a", "pgd", "--restarts", 2, "--set", "steps=5", "--set", "step_size=0.3")
    assert rbl(*run, "--json", "a.json", cwd=tmp_path).returncode == 0
    assert rbl(*run, "--json", "b.json", cwd=tmp_path).returncode == 0
    (first,) = timeless(read(tmp_path / "a.json"))
    assert [first] == timeless(read(tmp_path / "b.json"))
    expected = r"Restarts\(PGD\(steps=5, step_size=0.3, .*\), 2\)"
    assert re.fullmatch(expected, first["attack"])
    # 1 query for each step, 5 steps, 2 restarts, and those of the start and the end.
    most = max(s["queries"] for s in first["samples"])
    assert 10 <= most <= 14

    assert rbl(*run, "--exact", "--json", "c.json", cwd=tmp_path).returncode == 0
    narrow = (*run, "--exact", "--batch-size", 7, "--json", "d.json")
    assert rbl(*narrow, cwd=tmp_path).returncode == 0
    wide, small = read(tmp_path / "c.json")[0], read(tmp_path / "d.json")[0]
    assert [s["robust"] for s in wide["samples"]] == [s["robust"] for s in small["samples"]]


@pytest.mark.parametrize("target", ["next", "random", "4"])
def test_a_targeted_attack_reaches_its_class(rbl, tmp_path, target):
    done = rbl(
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


def test_the_leaderboard_ranks_by_the_worst_case(rbl, tmp_path):
    done = rbl(
        *("leaderboard", "--models", "digits-cnn,digits-cnn-at", "--attacks", "fgsm, pgd"),
        *("--n", N, "--json", "out.json"),
        cwd=tmp_path,
        COLUMNS="80",
    )
    assert done.returncode == 0, done.stderr
    entries = read(tmp_path / "out.json")
    assert [(e["model"], e["attack"][:4]) for e in entries] == [
        *(("digits-cnn", "FGSM"), ("digits-cnn", "PGD(")),
        *(("digits-cnn-at", "FGSM"), ("digits-cnn-at", "PGD(")),
    ]
    assert set(entries[0]) == KEYS
    title, _, first, second = done.stdout.splitlines()
    assert title.rstrip() == "digits, 60 samples, linf 0.15, seed 0"
    assert first.split()[:2] == ["1", "digits-cnn-at"]
    assert second.split()[:2] == ["2", "digits-cnn"]
    for row, (fgsm, pgd) in ((second, entries[:2]), (first, entries[2:])):
        pairs = zip(fgsm["samples"], pgd["samples"], strict=True)
        worst = sum(a["robust"] and b["robust"] for a, b in pairs) / N
        shares = (fgsm["clean_accuracy"], fgsm["robust_accuracy"], pgd["robust_accuracy"], worst)
        assert row.split()[2:6] == [f"{100 * share:.1f}" for share in shares]


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_no_figure_is_cut_or_wrapped(forked_rbl, tmp_path, copied_model, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    card = copied_model.with_suffix(".toml")
    name = "a-[bold]model[/bold]-with-a-name-of-:smile:-many-words"
    card.write_text(card.read_text().replace('"digits-cnn"', f'"{name}"'))
    model = copied_model.name
    alone = forked_rbl("attack", "-m", model, "-a", "fgsm", "--n", 30, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert name in alone.stdout.replace("\n", "").replace(" on ", "  ") or columns == "40"
    assert "\u2026" not in alone.stdout
    *_, header, row = alone.stdout.splitlines()
    titles = ["clean %", "robust %", "95 % CI", "mean size", "median", "queries", "seconds"]
    assert re.split(r"\s{2,}", header.strip())[-7:] == titles
    figures = r"fgsm +\d+\.\d +\d+\.\d +\d+\.\d-\d+\.\d +0\.150 +0\.150 +2\.\d +\d+\.\d"
    assert re.fullmatch(figures, row.strip())
    several = ("--models", f"{model},digits-cnn", "--attacks", "fgsm,pgd", "--n", 30)
    board = forked_rbl("leaderboard", *several, cwd=tmp_path)
    assert board.returncode == 0, board.stderr
    assert "\u2026" not in board.stdout
    rows = [line for line in board.stdout.splitlines() if re.match(r" +[12]  ", line)]
    assert len(rows) == 2
    for line in rows:
        assert re.search(r"( +\d+\.\d){4} +\d+\.\d-\d+\.\d +\d+\.\d$", line)


def names_of(kind: str) -> set[str]:
    return entry_points(group=f"robustbench_lite.{kind}").names


@pytest.mark.parametrize("kind", ["models", "attacks", "defenses", "data", "architectures"])
def test_a_list_has_every_name_with_a_line(forked_rbl, tmp_path, kind):
    done = forked_rbl("list", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line[0] != " "]
    assert {name for name, _ in lines} == names_of(kind)
    assert all(len(text) > 10 for _, text in lines)


def test_a_model_without_files_does_not_hide_the_others(forked_rbl, tmp_path, monkeypatch):
    (tmp_path / "absent.py").write_text("import pathlib\nm = pathlib.Path('gone.safetensors')\n")
    info = tmp_path / "absent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[robustbench_lite.models]\nabsent = absent:m\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from robustbench_lite.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.argv = ['rbl', 'list', 'models']; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(re.match(r"absent +not installed: gone.safetensors is missing", x) for x in lines)
    assert any(re.match(r"digits-cnn +A small .* net on scikit-learn's", x) for x in lines)


@pytest.mark.parametrize("kind", ["models", "attacks", "defenses", "data", "architectures"])
def test_everything_registered_can_be_shown(forked_rbl, tmp_path, kind):
    for name in names_of(kind):
        done = forked_rbl("show", name, cwd=tmp_path)
        if kind == "models" and not load_weights(name).is_file():
            assert done.returncode == 2
            assert "does not exist" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{name}  ")
        expected = {
            "models": ['summary = "', "[recipe]", "[measured]", "robust_ci95 = ["],
            "attacks": ["Settings (--set KEY=VALUE)", "  steps = ", "Norms: ", "Needs gradients"],
            "defenses": ["Settings (--set KEY=VALUE)", "  smoothing = "],
            "data": [f"{name}(split: "],
            "architectures": [f"{name}(classes: int, channels: int", "width: int = "],
        }[kind]
        for part in expected:
            assert part in done.stdout


def load_weights(name: str) -> Path:
    from robustbench_lite.registry import weights_of

    return weights_of(name)


OPTIONS = {
    "attack": "--model --attack --data --norm --eps --set --restarts --n --batch-size --seed "
    "--device --targeted --exact --json --save-adversarials",
    "leaderboard": "--models --attacks --data --norm --eps --n --batch-size --seed --device --json",
    "train": "--out --recipe --arch --arch-set --defense --set --data --test-data --exclude --norm "
    "--eps --test-eps --epochs --batch-size --lr --augment --warmup --ema --precision --seed "
    "--check --check-set --n --summary",
    "list": "kind",
    "show": "name",
}


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_shows_every_command_and_option_whole(rbl, columns):
    done = rbl("--help", COLUMNS=columns)
    assert done.returncode == 0
    commands = re.findall(r"^\u2502 (\w+) {2,}\w", done.stdout, re.MULTILINE)
    assert set(commands) == set(OPTIONS)
    for command, options in OPTIONS.items():
        text = rbl(command, "--help", COLUMNS=columns)
        assert text.returncode == 0
        assert "\u2026" not in text.stdout
        shown = set(re.findall(r"^\u2502[ *]+(--[\w-]+) ", text.stdout, re.MULTILINE))
        shown |= set(re.findall(r"^\u2502[ *]+(kind|name) ", text.stdout, re.MULTILINE))
        assert shown == {*options.split(), "--help"}


def test_without_arguments_it_shows_the_help(rbl):
    done = rbl()
    assert done.returncode == 2
    assert "Usage: rbl" in done.stdout + done.stderr
    assert "rbl:" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["attack", "--help"], ["train", "--help"]])
def test_help_needs_no_torch(arguments):
    code = (
        "import sys\nfrom robustbench_lite.cli import main\n"
        f"sys.argv = ['rbl', *{arguments}]\n"
        "try:\n    main()\n"
        "finally:\n    print({'torch', 'pandas', 'numpy', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: rbl" in done.stdout
    assert done.stdout.endswith("\nset()\n")


def test_digits_that_were_learned_are_not_those_that_are_attacked(attacked):
    _, entries, _ = attacked
    assert not {s["id"] for s in entries[0]["samples"]} & set(load_data("digits", Split.TRAIN).ids)
    assert all(math.isfinite(s["queries"]) for s in entries[0]["samples"])
