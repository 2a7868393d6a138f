"""Leaderboards from stored records whose figures are known exactly."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rbl_attacks.corruptions import Corruptions
from rbl_attacks.fgsm import FGSM
from rbl_attacks.fmn import FMN
from rbl_attacks.square import Square
from torch import nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.comparison import compared
from robustbench_lite.corruption import Corruption
from robustbench_lite.data import Dataset
from robustbench_lite.errors import InputError
from robustbench_lite.evidence import Evidence, Health
from robustbench_lite.figures import by_class, confusion, curve, over_queries
from robustbench_lite.leaderboard import Board, boards_in
from robustbench_lite.page.report import Push
from robustbench_lite.run import Contestant, Entry, entry_of
from robustbench_lite.stats import mcnemar, tango, wilson
from robustbench_lite.store import Store
from robustbench_lite.suite import Suite, Trial
from robustbench_lite.threat import Lp, Norm

N = 100
BALL = Lp(Norm.LINF, 0.5)
FIXED, MINIMAL = Trial("fgsm", FGSM(), BALL), Trial("fmn", FMN(steps=2), BALL)
Line = dict[str, Any]


def model(name: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), name=name)


def images() -> Dataset:
    return Dataset(torch.linspace(0, 1, 4 * N).reshape(N, 1, 2, 2), torch.arange(N) % 3)


def entry(name: str, *trials: Trial, seed: int = 0, n: int = N) -> Entry:
    suite = Suite("exact", {"": trials}, n=n, slice=40)
    return entry_of(suite, Contestant(model(name, seed)), images())


def put(
    store: Store,
    one: Entry,
    line: Callable[[str, int], Line],
    *,
    skip: int = 0,
    seconds: float = 1.0,
    health: Health | None = None,
) -> None:
    """Units whose records are made by `line(trial, number)`, but for the last `skip` units."""
    store.write("entries", one.key, one.content)
    told = json.loads(one.content.splitlines()[0])
    numbers = {sample: i for i, sample in enumerate(told["samples"])}
    for unit in one.units[: len(one.units) - skip]:
        usual = {"correct": True, "robust": True, "queries": 1, "backwards": 1}
        rows = [
            {"id": s, "label": int(s.rpartition("-")[2]), **usual}
            | line(unit.trial.name, numbers[s])
            for s in unit.ids
        ]
        seen = Evidence(len(rows), 3, sum(r["correct"] for r in rows), health=health)
        head = {"evidence": seen.to_json(), "records": len(rows)}
        lines = [{}, head, *rows, {"seconds": seconds, "versions": {"torch": "0"}}]
        text = "".join(json.dumps(each) + "\n" for each in lines)
        store.write("units", unit.key, text.encode())


def broken(size: float, reached: int = 0, queries: int = 1) -> Line:
    return {"robust": False, "size": size, "reached": reached, "queries": queries, "attack": "x"}


WRONG = {"correct": False, "robust": False, "queries": 0}


def quarters(trial: str, i: int) -> Line:
    """10 wrong, 20 fall to both, 30 to the minimal one only, 40 hold (fmn finds beyond eps)."""
    if i < 10:
        return WRONG
    if i < 30:
        return broken(0.5 if trial == "fgsm" else 0.1)
    if trial == "fgsm":
        return {}
    return broken(0.25) if i < 60 else {"size": 0.75, "reached": 1}


def only(store: Store) -> Board:
    (board,) = boards_in(store)
    return board


def test_the_figures_of_one_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("m", FIXED, MINIMAL), quarters)
    (row,) = only(store).rows
    assert (row.clean_accuracy, row.robust_accuracy) == (0.9, 0.4)
    assert row.clean_ci95 == wilson(90, N)
    assert row.robust_ci95 == wilson(40, N)
    assert [s.robust_accuracy for s in row.scores] == [0.7, 0.4]
    assert row.mean_size == pytest.approx((20 * 0.1 + 30 * 0.25 + 40 * 0.75) / 90)
    # The area under the step curve, by hand: 20 fall at .1, 30 at .25, 40 hold up to .5.
    assert row.area == pytest.approx((20 * 0.1 + 30 * 0.25 + 40 * 0.5) / (N * 0.5))
    assert row.seconds == 6.0  # three units a trial
    assert row.queries == 2.0
    assert row.mce is None
    assert (row.rank, row.missing, str(row.trust)) == (1, 0, "ok")


def test_the_curve_steps_where_samples_fall(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("m", FIXED, MINIMAL), quarters)
    (row,) = only(store).rows
    found = curve(row)
    assert found is not None
    for eps, share, low, high in zip(found.eps, found.robust, found.low, found.high, strict=True):
        expected = 90 - 20 * (eps >= 0.1) - 30 * (eps >= 0.25)
        assert share == pytest.approx(expected / N), eps
        assert (low, high) == wilson(expected, N)
    assert (found.eps[0], found.eps[-1]) == (0, 0.5)
    put(Store(tmp_path / "b"), entry("m", FIXED), quarters)
    assert (
        curve(only(Store(tmp_path / "b")).rows[0]) is None
    )  # one eps says nothing of smaller ones


def test_classes_and_where_attacks_push(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = entry("m", FIXED, MINIMAL)

    def line(trial: str, i: int) -> Line:
        label = int(json.loads(one.content.splitlines()[0])["samples"][i].rpartition("-")[2])
        if label == 0:
            return WRONG
        if label == 1:
            return broken(0.1, reached=2 if trial == "fgsm" else 0)
        return {}

    put(store, one, line)
    (row,) = only(store).rows
    counts = [34, 33, 33]
    told = [(c.label, c.n, c.clean, c.robust) for c in by_class(row)]
    assert told == [(0, 34, 0, 0), (1, 33, 1, 0), (2, 33, 1, 1)]
    # Each sample once, as the first trial that broke it left it.
    assert confusion(row) == [Push(1, 2, counts[1])]


def test_accuracy_over_queries_is_that_of_attacks_without_gradients(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blind = Trial("square", Square(steps=500), BALL)
    put(
        store,
        entry("m", FIXED, blind),
        lambda trial, i: broken(0.5, queries=i + 1) if trial == "square" and i < 50 else {},
    )
    (row,) = only(store).rows
    found = over_queries(row)
    assert found is not None
    for queries, share in zip(found.queries, found.robust, strict=True):
        assert share == pytest.approx(1 - min(queries, 50) / N)
    assert max(found.queries) == 50


def test_the_mean_corruption_error_counts_every_severity_and_wrong_samples(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trials = [
        Trial(kind, Corruptions(kinds=kind, stop=False), Corruption()) for kind in ("fog", "snow")
    ]

    def line(trial: str, i: int) -> Line:
        if i < 20:
            return WRONG
        return {"trace": [0, 0, 1, 1, 1] if trial == "fog" else [0, 0, 0, 0, 1]}

    put(store, entry("m", *trials), line)
    (row,) = only(store).rows
    assert row.mce == pytest.approx(0.2 + 0.8 * (0.6 + 0.2) / 2)


def test_the_real_attack_puts_every_severity_on_record(tmp_path: Path) -> None:
    from robustbench_lite.executor import InProcess
    from robustbench_lite.run import run

    store = Store(tmp_path)
    kind = Trial("contrast", Corruptions(kinds="contrast", stop=False), Corruption())
    run([entry("m", kind, seed=1)], store, InProcess())
    (row,) = only(store).rows
    (score,) = row.scores
    asked = score.errors[score.correct]
    assert not np.isnan(asked).any()
    assert set(np.round(asked * 5, 6)) <= {0, 1, 2, 3, 4, 5}
    assert np.isnan(score.errors[~score.correct]).all()
    assert (asked[~score.robust[score.correct]] > 0).all()
    assert (asked[score.robust[score.correct]] == 0).all()


def first(k: int) -> Callable[[str, int], Line]:
    return lambda trial, i: {} if i < k else broken(0.1)


def test_models_that_chance_may_explain_share_a_rank(tmp_path: Path) -> None:
    store = Store(tmp_path)
    # b holds 3 samples less than a: p = .25; c 40 less: beyond doubt, also after Holm.
    for name, k in (("a", 80), ("b", 77), ("c", 40)):
        put(store, entry(name, FIXED), first(k))
    board = only(store)
    assert [(r.model, r.rank) for r in board.rows] == [("a", 1), ("b", 1), ("c", 3)]


def test_equal_accuracy_by_other_samples_is_still_a_tie(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("a", FIXED), lambda trial, i: {} if i < 50 else broken(0.1))
    put(store, entry("b", FIXED), lambda trial, i: {} if i >= 50 else broken(0.1))
    assert [r.rank for r in only(store).rows] == [1, 1]


def test_a_row_with_gaps_is_told_and_not_ranked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("whole", FIXED), first(10))
    put(store, entry("half", FIXED), first(100), skip=1)
    whole, half = only(store).rows
    assert (whole.model, whole.rank, whole.missing) == ("whole", 1, 0)
    assert (half.model, half.rank, half.missing) == ("half", None, 20)
    assert half.robust_accuracy == 1.0  # of the 80 that have a result
    assert half.robust_ci95 == wilson(80, 80)


def test_what_is_missing_in_one_trial_is_missing_in_the_worst_case(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("m", FIXED, MINIMAL), quarters, skip=1)  # the last slice of fmn
    (row,) = only(store).rows
    assert row.missing == 20
    assert row.robust_accuracy == 20 / 80


def test_other_weights_of_one_name_are_another_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in (0, 1):
        put(store, entry("m", FIXED, seed=seed), first(50))
    names = {row.model for row in only(store).rows}
    assert len(names) == 2
    assert all(name.startswith("m@") and len(name) == 8 for name in names)


def test_other_samples_or_trials_are_another_board(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("m", FIXED), first(50))
    put(store, entry("m", MINIMAL), first(50))
    put(store, entry("m", FIXED, n=N - 1), first(50))
    assert len(boards_in(store)) == 3
    assert len(boards_in(store, {entry("m", FIXED).key})) == 1


def test_doubts_are_those_of_all_slices_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("m", FIXED), first(50), health=Health(0.2, 0.0, 8))
    (row,) = only(store).rows
    (doubt,) = row.doubts
    assert str(row.trust) == "fail"
    assert "cosine 0.20 only" in str(doubt)


def test_a_trial_without_gradients_looks_where_they_mislead(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = entry("m", FIXED, Trial("square", Square(steps=5), BALL))
    put(store, one, first(50), health=Health(0.2, 0.0, 8))
    (row,) = only(store).rows
    assert str(row.trust) == "fail"
    blind = json.loads(store.read("units", one.units[-1].key).splitlines()[1])
    blind["evidence"]["blind"] = True
    lines = store.read("units", one.units[-1].key).splitlines()
    lines[1] = json.dumps(blind).encode()
    store.write("units", one.units[-1].key, b"".join(line + b"\n" for line in lines))
    (row,) = only(store).rows
    assert str(row.trust) == "warn"
    assert "a search without gradients was added" in str(row.doubts[0])


def test_evidence_of_parts_is_that_of_the_whole() -> None:
    whole = Evidence(100, 10, 80, blindly=3, left=60, rising=3, health=Health(0.95, 0.25, 16))
    parts = (
        Evidence(40, 10, 30, blindly=3, left=20, rising=1, health=Health(0.92, 0.5, 8)),
        Evidence(60, 10, 50, left=40, rising=2, health=Health(0.98, 0.0, 8)),
    )
    assert parts[0] + parts[1] == parts[1] + parts[0]
    summed = parts[0] + parts[1]
    assert summed.health is not None
    assert summed.health.agreement == pytest.approx(0.95)
    assert (summed.n, summed.correct, summed.blindly, summed.left, summed.rising) == (
        whole.n,
        whole.correct,
        whole.blindly,
        whole.left,
        whole.rising,
    )


def test_two_models_are_compared_sample_by_sample(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, entry("a", FIXED), first(60))
    put(store, entry("b", FIXED), lambda trial, i: {} if 10 <= i < 55 else broken(0.1))
    found = compared(only(store), "a", "b")
    clean, robust = found.pairs
    assert (clean.lost, clean.gained, clean.p) == (0, 0, 1.0)
    assert (robust.lost, robust.gained, robust.n) == (15, 0, N)
    assert robust.drop == pytest.approx(0.15)
    assert robust.ci95 == tango(15, 0, N)
    assert robust.p == mcnemar(15, 0)
    assert len(found.only_a) == 15
    assert found.only_b == ()
    assert set(found.only_a) == {
        s for i, s in enumerate(only(store).samples) if i < 10 or 55 <= i < 60
    }
    with pytest.raises(InputError, match="'c' has no row"):
        compared(only(store), "a", "c")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    store = Store(tmp_path / "runs")
    put(store, entry("a_b&c|d", FIXED, MINIMAL), quarters)
    put(store, entry("plain", FIXED, MINIMAL), first(38), health=Health(0.2, 0.0, 8))
    return tmp_path


def listed(run: Callable[..., Any], folder: Path, *options: str) -> str:
    done = run("leaderboard", "runs", *options, cwd=folder, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text: str = done.stdout
    return text


FIRST = ["90.0", "40.0", "30.9-49.8", "70.0", "40.0"]


def test_the_table(forked_rbl, stored) -> None:
    title, heads, one, two, *notes = listed(forked_rbl, stored).splitlines()
    assert title.rstrip() == "exact on data, 100 samples, linf 0.5, seed 0"
    assert heads.split()[:3] == ["rank", "model", "clean"]
    assert one.split() == ["1=", "a_b&c|d", *FIRST, "ok", *one.split()[-5:]]
    assert one.split()[-1] == "6.0"
    assert two.split()[:2] == ["1=", "plain"]
    assert notes[0].startswith("= : an exact McNemar test")
    assert notes[1].startswith("fail: plain: gradients foretell")
    assert "6.0" not in listed(forked_rbl, stored, "--no-time").splitlines()[2].split()


def test_a_narrow_table_keeps_what_matters(forked_rbl, stored) -> None:
    done = forked_rbl("leaderboard", "runs", cwd=stored, COLUMNS="52")
    lines = done.stdout.splitlines()
    assert all(len(line.rstrip()) <= 52 for line in lines[:4])
    assert lines[2].split() == ["1=", "a_b&c|d", *FIRST[:3], "ok"]


def test_markdown(forked_rbl, stored) -> None:
    text = listed(forked_rbl, stored, "--format", "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert "| 1= | a_b&c\\|d | 90.0 | 40.0 | 30.9-49.8 |" in rows[2]
    assert {line.replace("\\|", "").count("|") for line in rows} == {rows[0].count("|")}
    assert "\n* fail: plain: gradients foretell" in text


def test_latex(forked_rbl, stored) -> None:
    text = listed(forked_rbl, stored, "--format", "latex")
    lines = text.splitlines()
    assert lines[1].startswith("\\begin{tabular}{rlrrr")
    assert "1= & a\\_b\\&c|d & 90.0 & 40.0 &" in lines[5]
    width = lines[1].count("r", len("\\begin{tabular}{")) + 1
    assert [line.replace("\\&", "").count("&") for line in lines[3:7:2]] == [width - 1] * 2


def test_csv(forked_rbl, stored) -> None:
    text = listed(forked_rbl, stored, "--format", "csv")
    one, two = csv.DictReader(io.StringIO(text))
    assert (one["model"], two["model"]) == ("a_b&c|d", "plain")
    figures = [float(one[k]) for k in ("clean", "robust", "robust_low", "robust fmn", "seconds")]
    assert figures == [0.9, 0.4, wilson(40, N)[0], 0.4, 6.0]
    assert (two["trust"], two["rank"], two["n"]) == ("fail", "1", "100")


def test_json_is_a_file_with_every_figure(forked_rbl, stored) -> None:
    assert listed(forked_rbl, stored, "--format", "json", "--out", "all.json") == ""
    (board,) = json.loads((stored / "all.json").read_text())
    one, two = board["entries"]
    assert (one["robust"], one["robust_ci"]) == (0.4, list(wilson(40, N)))
    assert one["attacks"]["fgsm"]["robust"] == 0.7
    assert one["seconds"] == 6.0
    assert len(two["doubts"]) == 1
    less = json.loads(listed(forked_rbl, stored, "--format", "json", "--no-time"))
    assert less[0]["entries"][0]["seconds"] is None


def test_compare_names_what_flipped(forked_rbl, stored) -> None:
    done = forked_rbl("compare", "a_b&c|d", "plain", "--show", 2, cwd=stored, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "A a_b&c|d, B plain"
    (robust,) = [line.split() for line in lines if line.startswith("robust ")][:1]
    low, high = tango(40, 38, N)
    assert robust[1:4] == ["40.0", "38.0", "+2.0"]
    assert robust[4:7] == [f"{100 * low:+.1f}", "to", f"{100 * high:+.1f}"]
    assert robust[7:] == ["40", "38", f"{mcnemar(40, 38):.2g}"]
    assert lines[-2].startswith("robust with A only: ")
    assert lines[-2].endswith(", ...")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("leaderboard", "gone"), "gone is no folder"),
        (("leaderboard", "."), "holds no results; run rbl bench"),
        (("leaderboard", "runs", "--suite", "other"), "there is exact on data"),
        (("leaderboard", "runs", "--data", "other"), "there is exact on data"),
        (("leaderboard", "runs", "--out", "x"), "--format table is for the terminal"),
        (("leaderboard", "runs", "--format", "xml"), "'xml'"),
        (("compare", "plain", "nobody"), "plain and nobody are not on one leaderboard"),
        (("merge", "runs", "gone", "--out", "x"), "gone is no folder"),
        (("merge", ".", "--out", "x"), "holds no results"),
    ],
)
def test_what_cannot_be_shown_is_told(forked_rbl, stored, arguments, told) -> None:
    done = forked_rbl(*arguments, cwd=stored)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (stored / "x").exists()
