"""`rbl baseline` and `rbl check` as real processes: answers, exit codes, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import WEIGHTS, contents
from safetensors.torch import load_file, save_file

from robustbench_lite.baseline import BaselineError, read_baseline
from robustbench_lite.registry import load_data

Run = Callable[..., Any]
N = 150


@pytest.fixture(scope="module")
def place(rbl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits as an npz file and a baseline of digits-cnn-at on it."""
    folder = tmp_path_factory.mktemp("gate")
    data = load_data("digits")
    save(folder / "d.npz", data.x.numpy(), data.y.numpy())
    done = rbl(*update(), "--data", "npz:d.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "b.json: a new baseline" in done.stdout
    return folder


def save(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    np.savez(path, x=np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1), y=y)


def update(model: str = "digits-cnn-at") -> tuple[object, ...]:
    return ("baseline", "update", "-m", model, "-b", "b.json", "--reason", "first", "--n", N)


def check(model: str = "digits-cnn-at", *more: object) -> tuple[object, ...]:
    return ("check", "-m", model, "-b", "b.json", *more)


def trial(name: str) -> dict[str, object]:
    return {"name": name, "asked": {}, "attack": "", "code": "", "threat": {}}


def answers(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines()[2:4]]


def changed_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """digits-cnn-at under another file name with every weight changed."""
    import hashlib

    state = {k: change(v) for k, v in load_file(WEIGHTS / "digits-cnn-at.safetensors").items()}
    save_file(state, folder / "new.safetensors")
    card = (WEIGHTS / "digits-cnn-at.toml").read_text()
    old = next(line for line in card.splitlines() if line.startswith("sha256 = "))
    digest = hashlib.sha256((folder / "new.safetensors").read_bytes()).hexdigest()
    (folder / "new.toml").write_text(card.replace(old, f'sha256 = "{digest}"'))
    return "new.safetensors"


def test_a_model_against_itself_passes(forked_rbl: Run, place: Path) -> None:
    done = forked_rbl(*check(), cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("robustness against the baseline: PASS\n")
    rows = [line.split() for line in done.stdout.splitlines()[2:4]]
    assert [row[1] for row in rows] == ["clean", "verdict"]
    for row in rows:
        assert row[2] == row[3]
        assert row[-5:-2] == ["0", "0", str(N)]


def test_an_undefended_model_fails(forked_rbl: Run, place: Path) -> None:
    done = forked_rbl(*check("digits-cnn"), cwd=place, COLUMNS="80")
    assert done.returncode == 1
    assert "FAIL" in done.stdout.splitlines()[0]
    assert answers(done.stdout)[1] == "fail"
    assert done.stderr == ""


def test_a_rounding_of_the_weights_passes(forked_rbl: Run, place: Path) -> None:
    torch.manual_seed(0)
    model = changed_weights(place, lambda w: w + 1e-6 * torch.randn_like(w))
    done = forked_rbl(*check(model), cwd=place)
    assert done.returncode == 0, done.stdout


def test_images_in_another_order_give_the_same_answer(forked_rbl: Run, place: Path) -> None:
    data = load_data("digits")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    save(place / "turned.npz", data.x[order].numpy(), data.y[order].numpy())
    plain = forked_rbl(*check("digits-cnn"), cwd=place)
    turned = forked_rbl(*check("digits-cnn", "--data", "npz:turned.npz"), cwd=place)
    assert (turned.returncode, turned.stdout) == (plain.returncode, plain.stdout)


def test_more_images_than_then_do_not_matter(forked_rbl: Run, place: Path) -> None:
    data = load_data("digits")
    x = torch.cat([data.x, 1 - data.x[:200]])
    y = torch.cat([data.y, data.y[:200]])
    save(place / "more.npz", x.numpy(), y.numpy())
    done = forked_rbl(*check("digits-cnn-at", "--data", "npz:more.npz"), cwd=place)
    assert done.returncode == 0, done.stderr


def test_one_changed_image_is_not_comparable(forked_rbl: Run, place: Path) -> None:
    data = load_data(f"npz:{place / 'd.npz'}")
    ids = set(read_baseline(place / "b.json", data.ids).ids)
    x = data.x.clone()
    x[next(i for i, s in enumerate(data.ids) if s in ids), 0, 0, 0] += 1 / 16
    save(place / "other.npz", x.numpy(), data.y.numpy())
    done = forked_rbl(*check("digits-cnn-at", "--data", "npz:other.npz"), cwd=place)
    assert (done.returncode, done.stdout) == (5, "")
    assert "data 'npz:d.npz' lacks 1 of its 150 samples" in done.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: b["trials"][0].update(attack="0"), "the attack of verdict differs"),
        (lambda b: b["trials"][0].update(code="0"), "the attack's code of verdict differs"),
        (lambda b: b["trials"][0]["threat"].update(eps=0.2), "the threat of verdict differs"),
        (lambda b: b["samples"].pop(), "lines that are not whole"),
        (lambda b: b.update(ids="0"), "has other samples"),
        (lambda b: b.pop("seed"), "seed"),
        (lambda b: b.update(more=1), "more"),
        (lambda b: b["trials"][0].pop("asked"), "lines that are not whole"),
    ],
)
def test_what_a_baseline_was_not_made_with_is_named(
    forked_rbl: Run, place: Path, tmp_path: Path, change, told
) -> None:
    baseline = json.loads((place / "b.json").read_text())
    change(baseline)
    (tmp_path / "b.json").write_text(json.dumps(baseline))
    (tmp_path / "d.npz").write_bytes((place / "d.npz").read_bytes())
    done = forked_rbl(*check(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_baseline(forked_rbl: Run, tmp_path: Path) -> None:
    done = forked_rbl(*check(), cwd=tmp_path)
    assert done.returncode == 5
    assert "b.json does not exist; make it with rbl baseline update" in done.stderr


def test_an_undecided_gate_passes_unless_told(forked_rbl: Run, place: Path) -> None:
    few = ("--max-samples", 20)  # without any flip the bound is above 2 points
    done = forked_rbl(*check("digits-cnn-at", *few), cwd=place)
    assert done.returncode == 0
    assert answers(done.stdout) == ["inconclusive"] * 2
    assert "more samples would decide it" in done.stdout
    done = forked_rbl(*check("digits-cnn-at", *few, "--on-inconclusive", "fail"), cwd=place)
    assert done.returncode == 4
    wide = forked_rbl(*check("digits-cnn-at", *few, "--margin", "30pt"), cwd=place)
    assert answers(wide.stdout) == ["pass"] * 2


def test_policy_exact_fails_on_one_sample(forked_rbl: Run, place: Path, tmp_path: Path) -> None:
    text = (place / "b.json").read_text()
    assert "-" in text.split('"samples"')[1]
    head, samples = text.split('"samples"')
    (tmp_path / "b.json").write_text(head + '"samples"' + samples.replace("-", "+", 1))
    (tmp_path / "d.npz").write_bytes((place / "d.npz").read_bytes())
    assert forked_rbl(*check(), cwd=tmp_path).returncode == 0
    done = forked_rbl(*check("digits-cnn-at", "--policy", "exact"), cwd=tmp_path)
    assert done.returncode == 1
    assert answers(done.stdout) == ["pass", "fail"]


def test_a_sequential_gate_stops_early(forked_rbl: Run, place: Path) -> None:
    done = forked_rbl(*check("digits-cnn", "--sequential"), cwd=place)
    assert done.returncode == 1
    looked_at = {int(line.split()[-3]) for line in done.stdout.splitlines()[2:4]}
    assert looked_at == {100}


def test_out_of_time(forked_rbl: Run, place: Path) -> None:
    done = forked_rbl(*check("digits-cnn-at", "--time-limit", "0.001s"), cwd=place)
    assert done.returncode == 6
    assert "out of time after 100 of 150 samples" in done.stdout


def test_figures_that_cannot_be_trusted(forked_rbl: Run, tmp_path: Path) -> None:
    """Labels shifted by one: the model is worse than chance."""
    data = load_data("digits")
    save(tmp_path / "d.npz", data.x.numpy(), (data.y.numpy() + 1) % 10)
    done = forked_rbl(*update(), "--data", "npz:d.npz", cwd=tmp_path)
    assert done.returncode == 0
    done = forked_rbl(*check("digits-cnn-at", "--junit", "j", "--summary", "s"), cwd=tmp_path)
    assert done.returncode == 3
    assert "labels are shifted by one" in done.stdout
    assert (tmp_path / "s").read_text().startswith("### Robustness: NOT TO BE TRUSTED\n")
    (suite,) = ElementTree.parse(tmp_path / "j").getroot().findall("testsuite")
    assert (suite.get("errors"), suite.get("tests")) == ("1", "3")
    assert len(suite.findall("testcase")) == 3


def test_every_file(forked_rbl: Run, place: Path) -> None:
    files = {"junit": "j.xml", "summary": "s.md", "json": "a.json", "trend": "t.json"}
    options = [part for name, file in files.items() for part in (f"--{name}", file)]
    done = forked_rbl(*check("digits-cnn", *options, "--openmetrics", "o.txt"), cwd=place)
    assert done.returncode == 1
    told = json.loads((place / "a.json").read_text())
    assert told["answer"] == "fail"
    _, robust = told["checks"][0]["measured"]
    assert robust["lost"] - robust["gained"] == round((robust["was"] - robust["is"]) * N)
    assert len(robust["lost_samples"]) == robust["lost"]

    root = ElementTree.parse(place / "j.xml").getroot()
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["clean", "verdict linf 0.15"]
    failures = [case for case in cases if case.find("failure") is not None]
    assert len(failures) == int(suite.get("failures") or 0) >= 1
    assert failures[-1].get("classname") == "robustness.digits-cnn"

    trend = json.loads((place / "t.json").read_text())
    assert [p["name"] for p in trend] == ["digits-cnn clean", "digits-cnn verdict"]
    assert trend[1]["value"] == pytest.approx(100 * robust["is"], abs=1e-3)

    lines = (place / "o.txt").read_text().splitlines()
    assert lines[-1] == "# EOF"
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    labels = '{model="digits-cnn",measured="verdict"'
    assert float(values[f"rbl_accuracy{labels}}}"]) == robust["is"]
    assert values[f'rbl_gate{labels},answer="fail"}}'] == "1"
    assert values[f'rbl_gate{labels},answer="pass"}}'] == "0"

    summary = (place / "s.md").read_text()
    assert summary.startswith("### Robustness: FAIL\n")
    assert robust["lost_samples"][0] in summary
    assert f"and {robust['lost'] - 10} more" in summary


def test_openmetrics_can_be_parsed(forked_rbl: Run, place: Path) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    forked_rbl(*check("digits-cnn", "--openmetrics", "p.txt"), cwd=place)
    families = {f.name: f for f in text_string_to_metric_families((place / "p.txt").read_text())}
    assert {"rbl_accuracy", "rbl_lost_samples", "rbl_gate"} <= families.keys()
    assert len(families["rbl_gate"].samples) == 6


def test_on_github_it_writes_where_people_look(forked_rbl: Run, place: Path) -> None:
    (place / "step.md").write_text("before\n")
    done = forked_rbl(
        *check("digits-cnn"), cwd=place, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY="step.md"
    )
    assert (place / "step.md").read_text().startswith("before\n### Robustness: FAIL\n")
    lines = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert lines[0].startswith("::error title=robustness::digits-cnn verdict: ")
    assert len(lines) <= 10


CONFIG = """
[gate]
margin = "30pt"

[[checks]]
model = "digits-cnn-at"
baseline = "b.json"

[[checks]]
model = "digits-cnn"
baseline = "b.json"
"""


def test_a_file_of_checks_decides_on_all_of_them(forked_rbl: Run, place: Path) -> None:
    (place / "rbl.toml").write_text(CONFIG)
    done = forked_rbl("check", cwd=place)
    (place / "rbl.toml").unlink()
    assert done.returncode == 1
    rows = [line.split() for line in done.stdout.splitlines()[2:6]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("digits-cnn-at", "clean", "pass"),
        ("digits-cnn-at", "verdict", "pass"),
        ("digits-cnn", "clean", "pass"),
        ("digits-cnn", "verdict", "fail"),
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check",), "rbl.toml does not exist; give --model and --baseline"),
        (("check", "-m", "digits-cnn"), "--model and --baseline go together"),
        (check("digits-cnn", "--margin", "much"), "--margin 'much' is no number of points"),
        (check("digits-cnn", "--margin", "0pt"), "margin is 0"),
        (check("digits-cnn", "--alpha", "2"), "alpha is 2"),
        (check("digits-cnn", "--policy", "mild"), "--policy 'mild' is unknown"),
        (check("digits-cnn", "--time-limit", "soon"), "--time-limit 'soon' is no time"),
        (check("digits-cnn", "--junit", "no/j"), "the folder no does not exist"),
        (check("digits-cnn", "--junit", "j", "--json", "j"), "two of the files to write are"),
        (check("digits-cnn", "--max-samples", "0"), "--max-samples 0"),
        (("power", "--drop", "5pt", "--discordance", "0.01"), "a drop of 0.05 with discordance"),
        (("baseline", "update", "-m", "digits-cnn", "-b", "x", "--reason", " "), "--reason is"),
    ],
)
def test_wrong_use_is_told(forked_refused: Run, arguments, told) -> None:
    assert told in forked_refused(*arguments)


def test_the_samples_that_a_gate_needs(forked_rbl: Run, tmp_path: Path) -> None:
    done = forked_rbl("power", "--drop", "2pt", "--discordance", "0.02", cwd=tmp_path)
    assert done.stdout.startswith("536 samples")


def test_a_baseline_is_small_and_says_who_and_why(forked_rbl: Run, place: Path) -> None:
    done = forked_rbl("baseline", "show", "b.json", cwd=place)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(": first")
    from robustbench_lite.baseline import Baseline, baseline_text

    ids = tuple(f"{i:016x}-3" for i in np.random.default_rng(0).integers(2**60, size=10_000))
    trials = tuple(trial(n) for n in ("a", "b"))
    right = tuple([True, False] * 5000)
    big = Baseline("m", "d", 0, ids, trials, right, {"a": right, "b": right}, {})
    assert len(baseline_text(big).encode()) < 100_000


def test_a_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    from robustbench_lite.baseline import Baseline, baseline_text
    from robustbench_lite.data import rank_of

    ids = tuple(
        sorted(
            (f"{i * 2654435761 % 2**32:08x}{i:08x}-3" for i in range(50)),
            key=lambda s: rank_of(4, s),
        )
    )
    clean = tuple(i % 3 > 0 for i in range(50))
    robust = {"a": tuple(c and i % 2 > 0 for i, c in enumerate(clean)), "b": clean}
    trials = tuple(trial(n) for n in robust)
    made = Baseline("m", "d", 4, ids, trials, clean, robust, {"reason": "why"})
    (tmp_path / "b").write_text(baseline_text(made))
    assert read_baseline(tmp_path / "b", ids) == made
    assert read_baseline(tmp_path / "b", [*ids[::-1], *(f"f{i:015x}-1" for i in range(9))]) == made
    with pytest.raises(BaselineError, match=r"lacks 1 of its 50 samples"):
        read_baseline(tmp_path / "b", ids[1:])


def test_in_continuous_integration_a_baseline_is_not_changed(rbl: Run, place: Path) -> None:
    before = contents(place)
    done = rbl(*update(), cwd=place, CI="true")
    assert done.returncode == 2
    assert "--allow-ci" in done.stderr
    assert contents(place) == before


def test_an_update_tells_what_changes(forked_rbl: Run, place: Path, tmp_path: Path) -> None:
    for name in ("b.json", "d.npz"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    done = forked_rbl(*update("digits-cnn"), "--data", "npz:d.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("b.json: ")]
    assert len(told) == 2
    assert "verdict: " in told[1]
    assert " lost, " in told[1]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from robustbench_lite.cli import main; sys.argv = ['rbl', 'check', '--help']"
    )
    told = f"{code}\ntry: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", told], env=dict(os.environ), check=False)
    assert done.returncode == 0


def test_init_writes_a_file_that_check_reads(forked_rbl: Run, place: Path, tmp_path: Path) -> None:
    done = forked_rbl("init", "-m", "digits-cnn-at", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "digits-cnn-at.baseline.json").write_bytes((place / "b.json").read_bytes())
    (tmp_path / "d.npz").write_bytes((place / "d.npz").read_bytes())
    assert forked_rbl("check", cwd=tmp_path).returncode == 0
    again = forked_rbl("init", "-m", "digits-cnn-at", cwd=tmp_path)
    assert again.returncode == 2
    assert "rbl.toml exists" in again.stderr


def test_policy_exact_looks_at_every_sample(forked_rbl: Run, place: Path, tmp_path: Path) -> None:
    """The lost sample is the last of those that were broken, after the first look at 100."""
    text = (place / "b.json").read_text()
    at = text.rindex("-", 0, text.rindex('"'))
    assert text[:at].count(" ") > 100
    (tmp_path / "b.json").write_text(text[:at] + "+" + text[at + 1 :])
    (tmp_path / "d.npz").write_bytes((place / "d.npz").read_bytes())
    done = forked_rbl(*check("digits-cnn-at", "--policy", "exact", "--sequential"), cwd=tmp_path)
    assert done.returncode == 1
    assert int(done.stdout.splitlines()[3].split()[-3]) == N


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gate = 1", "needs [gate] with numbers and [[checks]]"),
        ('checks = "x"', "needs [gate] with numbers and [[checks]]"),
        ("checks = [1]", "needs [gate] with numbers and [[checks]]"),
        ('[gate]\nalpha = "high"', "needs [gate] with numbers and [[checks]]"),
        ("[gate]\nbeta = 1", "unknown field 'beta'"),
        ("[[checks]]\nmodel = 'a'", "needs [[checks]], each with model and baseline"),
        ("[gate", "cannot be read"),
    ],
)
def test_a_wrong_file_of_checks_is_told(forked_refused: Run, tmp_path: Path, text, told) -> None:
    (tmp_path / "rbl.toml").write_text(text)
    assert told in forked_refused("check")


def test_models_of_a_file_of_checks_lie_beside_it(forked_rbl: Run, place: Path, tmp_path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("digits-cnn-at.safetensors", "digits-cnn-at.toml"):
        (inner / name).write_bytes((WEIGHTS / name).read_bytes())
    (inner / "b.json").write_bytes((place / "b.json").read_bytes())
    (tmp_path / "d.npz").write_bytes((place / "d.npz").read_bytes())
    (inner / "rbl.toml").write_text(
        '[[checks]]\nmodel = "digits-cnn-at.safetensors"\nbaseline = "b.json"\n'
    )
    done = forked_rbl("check", "--config", "inner/rbl.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_damaged_baseline_can_be_made_anew(forked_rbl: Run, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{")
    done = forked_rbl(*update(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "b.json: a new baseline" in done.stdout
