"""Suites: as values, from files, and what they ask to be computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rbl_attacks.fgsm import FGSM
from rbl_attacks.pgd import PGD

from robustbench_lite.errors import InputError
from robustbench_lite.executor import InProcess
from robustbench_lite.models import load_with_profile
from robustbench_lite.registry import Kind, load_data, registered
from robustbench_lite.run import Contestant, Stand, entry_of, run
from robustbench_lite.store import Store
from robustbench_lite.structured import Spatial
from robustbench_lite.suite import Suite, Trial, load_suite
from robustbench_lite.threat import Access, Lp, Norm

BALL = Lp(Norm.LINF, 0.1)
ONE = (Trial("fgsm", FGSM(), BALL),)


def entry(suite: Suite, model: str = "digits-cnn"):
    classifier, profile = load_with_profile(model)
    return entry_of(suite, Contestant(classifier, profile, model), load_data("digits"), "digits")


@pytest.mark.parametrize("name", registered(Kind.SUITES))
def test_every_suite_has_something_to_do_for_a_net_of_the_zoo(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    units = entry(suite).units
    trials = suite.trials_on("digits")
    slices = -(-min(suite.n, 600) // suite.slice)
    assert len(units) == len(trials) * slices
    assert len({unit.key for unit in units}) == len(units)
    per_trial = [sample for unit in units[:slices] for sample in unit.ids]
    assert len(set(per_trial)) == len(per_trial) == min(suite.n, 600)


def test_the_data_that_starts_most_alike_decides() -> None:
    other = (Trial("pgd", PGD(), BALL),)
    suite = Suite("s", {"": ONE, "mnist": other, "mnist5": ONE})
    assert suite.trials_on("mnist5k") == ONE
    assert suite.trials_on("mnist-small") == other
    assert suite.trials_on("cifar") == ONE
    with pytest.raises(InputError, match=r"no eps for data 'cifar', .* start with mnist; give"):
        Suite("s", {"mnist": ONE}).trials_on("cifar")


def test_another_eps_is_for_every_norm_and_all_data() -> None:
    changed = load_suite("linf").at(0.07)
    threats = {trial.threat for trial in changed.trials_on("whatever")}
    assert threats == {Lp(Norm.LINF, 0.07)}
    limited = load_suite("blackbox").at(0.07).trials_on("x")
    assert [t.threat.access for t in limited] == [Access.SCORES, Access.DECISIONS]
    assert {t.threat.queries for t in limited} == {1000}
    with pytest.raises(InputError, match="'multi' is not about one norm"):
        load_suite("multi").at(0.1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n": 0}, "n is 0"),
        ({"slice": 0}, "slice is 0"),
        ({"trials": {}}, "has no trial"),
        ({"trials": {"": ()}}, "has no trial"),
        ({"trials": {"": ONE * 2}}, "two trials called 'fgsm'"),
    ],
)
def test_a_suite_that_makes_no_sense_is_refused(changes, told) -> None:
    with pytest.raises(InputError, match=told):
        Suite(**({"name": "s", "trials": {"": ONE}} | changes))


def test_a_trial_whose_attack_cannot_keep_to_the_threat_is_refused() -> None:
    with pytest.raises(InputError, match=r"trial 'x': FGSM.* does not support turn by"):
        Trial("x", FGSM(), Spatial())


def test_more_samples_need_only_the_new_slices(tmp_path: Path) -> None:
    small = Suite("s", {"": ONE}, n=40, slice=20)
    store, executor = Store(tmp_path), InProcess()
    assert run([entry(small)], store, executor).computed == 2
    stands: list[Stand] = []
    larger = run([entry(replace(small, n=70))], store, executor, report=stands.append)
    assert (larger.found, larger.computed) == (2, 2)
    assert (stands[-1].done, stands[-1].total) == (4, 4)


OWN = """
name = "mine"
summary = "My own."
n = 30
seed = 3
slice = 16

[[trials]]
attack = "pgd"
norm = "linf"
eps = "26/255"
set = { steps = 3 }

[[trials]]
name = "turned"
attack = "spatial"
threat = "spatial"
threat_set = { degrees = 10 }
access = "decisions"
queries = 50
restarts = 2
"""


def test_a_suite_file_runs_what_it_says(forked_rbl, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN)
    done = forked_rbl("bench", "mine.toml", "-m", "digits-cnn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine on digits, 30 samples, seed 3\n")
    told = json.loads(forked_rbl("leaderboard", "runs", "--format", "json", cwd=tmp_path).stdout)
    (board,) = told
    assert [t["name"] for t in board["trials"]] == ["pgd", "turned"]
    assert board["trials"][0]["attack"] == "PGD(steps=3, step_size=0.1, loss=ce, random_start=True)"
    assert board["trials"][1]["attack"].startswith("Restarts(SpatialAttack(")
    assert board["trials"][1]["threat"] == "turn by 10 degrees, shift by 10 %"
    (row,) = board["entries"]
    same = forked_rbl(
        *("attack", "-m", "digits-cnn", "-a", "pgd", "--set", "steps=3", "--eps", "26/255"),
        *("--n", 30, "--seed", 3, "--json", "a.json"),
        cwd=tmp_path,
    )
    assert same.returncode == 0, same.stderr
    (alone,) = json.loads((tmp_path / "a.json").read_text())
    assert row["attacks"]["pgd"]["robust"] == alone["robust_accuracy"]
    assert row["attacks"]["pgd"]["ci"] == alone["robust_ci95"]
    assert row["attacks"]["pgd"]["queries"] == pytest.approx(alone["queries_per_sample"])
    assert row["clean"] == alone["clean_accuracy"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("n = 30", "n = 30\ncolour = 1", ["line 5", "colour"]),
        ("n = 30", "n = -1", ["line 4", "n: ", "-1"]),
        ('eps = "26/255"', 'eps = "a lot"', ["line 8", "eps 'a lot' is not a number"]),
        ('attack = "spatial"', 'attack = "spatal"', ["line 14", "'spatal'", "did you mean"]),
        ("{ steps = 3 }", "{ steps = 0 }", ["line 8", "steps is 0"]),
        ("{ steps = 3 }", "{ stepz = 3 }", ["line 8", "stepz"]),
        ('norm = "linf"', 'norm = "l3"', ["line 10", "norm"]),
        ('norm = "linf"\n', "", ["line 8", "needs norm and eps"]),
        ("restarts = 2", 'norm = "l2"', ["line 14", "either a threat or a norm"]),
        ("restarts = 2", "restarts = 0", ["line 21", "restarts"]),
        ("{ degrees = 10 }", "{ degrees = 200 }", ["line 14", "degrees"]),
        ('name = "turned"', 'name = "pgd"', ["two trials called 'pgd'"]),
        ("seed = 3", "seed = ", ["cannot be read", "line 5"]),
        ('norm = "linf"', 'threat = "patch"', ["line 8", "either a threat or a norm"]),
    ],
)
def test_a_wrong_suite_file_names_the_line(forked_refused, tmp_path, old, new, told) -> None:
    assert old in OWN
    (tmp_path / "mine.toml").write_text(OWN.replace(old, new, 1))
    said = forked_refused("bench", "mine.toml", "--models", "digits-cnn")
    for part in ("mine.toml", *told) if "two trials" not in told[0] else told:
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone.toml",), "suite file gone.toml does not exist"),
        (("smok",), "did you mean smoke"),
        (("smoke", "--attacks", "pgd"), "--attacks and the suite 'smoke' say both"),
        (("smoke", "--norm", "l2"), "--norm and the suite 'smoke' say both"),
        (("multi", "--eps", "0.1"), "'multi' is not about one norm"),
        (("smoke", "--executor", "slurm"), "--executor 'slurm' is unknown; give local or ray"),
        (("smoke", "--shard", "3/2"), "--shard '3/2' does not exist; give 1/2 to 2/2"),
        (("smoke", "--shard", "half"), "--shard 'half' is not i/N"),
        (("smoke", "--workers", "0"), "--workers 0 leaves nothing to do"),
        (("smoke", "--slice", "0"), "--slice 0 leaves nothing to do"),
    ],
)
def test_a_bench_that_cannot_be_run_is_refused(forked_refused, arguments, told) -> None:
    assert told in forked_refused("bench", *arguments, "--models", "digits-cnn")


def test_a_model_of_a_pattern_that_cannot_take_part_is_left_out(forked_rbl, tmp_path) -> None:
    run_ = ("bench", "smoke", "--n", 10, "--models")
    done = forked_rbl(*run_, "digits-hog-linear,digits-cnn", cwd=tmp_path)
    assert done.returncode == 2  # it was named
    assert not (tmp_path / "runs").exists()
    done = forked_rbl(*run_, "digits-h*,digits-cnn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "digits-hog-linear is left out: FGSM" in done.stderr
    assert "digits-hog" not in done.stdout
    done = forked_rbl(*run_, "digits-h*", cwd=tmp_path)
    assert done.returncode == 2
    assert "none of --models can take part" in done.stderr


def test_what_failed_is_told_with_its_samples(tmp_path: Path) -> None:
    from robustbench_lite.cli.bench import _complain
    from robustbench_lite.errors import IncompleteError
    from robustbench_lite.run import Tally

    one, two = entry(Suite("s", {"": ONE}, n=8, slice=4)).units
    _complain(Tally(computed=2), tmp_path)  # nothing failed, nothing is said
    with pytest.raises(IncompleteError) as told:
        _complain(Tally(failed={one: "it broke.", two: "it broke too"}), tmp_path)
    text = str(told.value)
    assert text.startswith("digits-cnn fgsm and 1 other units failed (it broke), so that 8 samples")
    assert f"({', '.join(one.ids[:3])}, ...)" in text
    assert told.value.exit_code == 6
