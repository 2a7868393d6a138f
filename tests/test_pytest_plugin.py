"""The fixture `robustness` in real runs of pytest, as a user has them."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "robustbench_lite.pytest_plugin"
POINT = f"[pytest11]\nrobustness = {PLUGIN}\n"
N = 40
MAKING = f'attack="pgd", eps=0.15, n={N}, steps=10'
Pytester = pytest.Pytester


@pytest.fixture
def inner(pytester: Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytester:
    """A folder for runs of pytest in which the plugin is installed, outside of CI."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "200")
    if not entry_points(group="pytest11", name="robustness"):
        told = pytester.mkdir("site") / "plugin_of_this_checkout-0.dist-info"
        told.mkdir()
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-this-checkout\n")
        (told / "entry_points.txt").write_text(POINT)
        monkeypatch.setenv("PYTHONPATH", str(told.parent), prepend=os.pathsep)
    return pytester


def run(inner: Pytester, *options: str, **files: str) -> pytest.RunResult:
    if files:
        inner.makepyfile(**files)
    return inner.runpytest_subprocess("-p", "no:cacheprovider", *options)


def section(result: pytest.RunResult, name: str) -> list[str]:
    """The lines of a part of the output."""
    text = result.stdout.str()
    (found,) = re.findall(rf"^[=_]+ {name} [=_]+\n(.*?)(?=^[=_-]{{3,}} |\Z)", text, re.M | re.S)
    return [line for line in found.splitlines() if line]


def test_the_entry_point_is_there() -> None:
    told = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert told["project"]["entry-points"]["pytest11"] == {"robustness": PLUGIN}


CHECKS = f"""
    import pytest

    def test_passes(robustness):
        result = robustness.check(
            "digits-cnn-at", "digits", "pgd", eps=0.15, n={N}, min_robust=0.45, steps=10
        )
        assert result
        assert result.found.n == {N}

    def test_fails(robustness):
        assert robustness.check("digits-cnn", "digits", "verdict", eps=0.15, n={N}, min_robust=0.45)

    def test_no_threshold(robustness):
        assert robustness.check("digits-cnn", "digits", "fgsm", eps=0.15, n={N})

    def test_a_module_and_samples(robustness):
        import robustbench_lite as rbl

        model = rbl.load_model("digits-cnn-at")
        model.model.train()
        data = rbl.load_data("digits").sample({N}, 3)
        share = robustness.check(model, data, "fgsm", eps=0.15).found.robust_accuracy
        exactly = robustness.check(model, data, "fgsm", eps=0.15, min_robust=share)
        assert exactly
        above = robustness.check(model, data, "fgsm", eps=0.15, min_robust=share + 0.01)
        assert not above
        far = robustness.check(model, data, "fgsm", eps=0.15, min_robust=share - 0.3)
        told = ["other samples could say otherwise" in repr(r) for r in (exactly, above, far)]
        assert told == [True, True, False]
        assert model.model.training

    def test_not_to_be_trusted(robustness):
        import robustbench_lite as rbl

        data = rbl.load_data("digits")
        wrong = rbl.Dataset(data.x, (data.y + 1) % 10)
        assert robustness.check("digits-cnn-at", wrong, "fgsm", eps=0.15, n=120)

    @pytest.mark.parametrize(
        "wrong",
        [{{"min_robust": 45}}, {{"norm": "l7"}}, {{"attack": "pgdd"}}, {{"step": 3}}],
    )
    def test_wrong_use(robustness, wrong):
        assert robustness.check("digits-cnn", "digits", eps=0.15, **wrong)
"""


def test_check(inner: Pytester) -> None:
    done = run(inner, test_c=CHECKS)
    done.assert_outcomes(passed=3, failed=6)
    from robustbench_lite import Lp, Norm, evaluate, load_attack, load_data, load_model

    samples = load_data("digits").sample(N)
    attack = load_attack("verdict", effort="quick")
    found = evaluate(load_model("digits-cnn"), attack, Lp(Norm.LINF, 0.15), samples)
    right = sum(r.robust for r in found.records)
    low, high = (100 * end for end in found.robust_ci95)
    figures = (
        f"FAIL: digits-cnn: robust {100 * right / N:.1f} %, 95 % CI {low:.1f} to {high:.1f}, "
        f"{right} of {N}, at least 45.0 % wanted"
    )
    text = done.stdout.str()
    told = section(done, "test_fails")
    assert any(line.startswith(f"E       AssertionError: assert {figures}") for line in told)
    parts = re.split(r"^-+ robustness -+\n", text, flags=re.MULTILINE)
    (full,) = (part for part in parts if part.startswith(f"{figures}\n"))
    full, *_ = full.partition("\n_")
    assert full.endswith("\nVerdict(effort=quick), linf 0.15, digits, seed 0")
    assert "other samples could say otherwise" not in full

    summary = section(done, "robustness")
    assert f"test_c.py::test_fails: {figures}" in summary
    assert len([line for line in summary if "test_a_module_and_samples" in line]) == 4
    passed = next(line for line in summary if "test_passes" in line)
    assert re.search(r"PASS: digits-cnn-at: robust \d\d\.\d %, 95 % CI .*45\.0 % wanted$", passed)

    (doubt,) = (line for line in summary if "test_not_to_be_trusted" in line)
    assert re.search(r"NOT TO BE TRUSTED: fail: \d\d % .* labels are shifted by one", doubt)
    for told in ("min_robust is 45; give a share", "norm 'l7' is unknown", "'pgdd'", "'step'"):
        assert re.search(rf"^E +Failed: .*{re.escape(told)}", text, re.M), told
    assert "pytest_plugin.py" not in text  # no frame of the plugin


REGRESSION = f"""
    import pytest

    @pytest.fixture
    def baseline():
        return "kept/b.json"

    @pytest.mark.parametrize("model", ["digits-cnn-at", "digits-cnn"])
    def test_spec(robustness, baseline, model):
        assert robustness.regression(model, baseline=baseline, margin=0.2)

    def test_module(robustness, baseline):
        import robustbench_lite as rbl

        data = rbl.load_data("digits")
        model = rbl.load_model("digits-cnn-at").model
        assert robustness.regression(model, data, baseline, margin=0.2, {MAKING})

    def test_undecided(robustness, baseline):
        assert robustness.regression("digits-cnn-at", baseline=baseline)

    @pytest.mark.parametrize("other", [{{"eps": 0.1}}, {{"n": 30}}, {{"seed": 1}}])
    def test_other(robustness, baseline, other):
        assert robustness.regression("digits-cnn-at", baseline=baseline, **other)
"""
MAKE = f"""
    def test_make(robustness):
        assert robustness.regression("digits-cnn-at", baseline="kept/b.json", {MAKING})
"""


def test_regression(inner: Pytester) -> None:
    made = run(inner, "--rbl-update-baseline", "sub", **{"sub/test_make": MAKE})
    made.assert_outcomes(passed=1)
    path = inner.path / "sub" / "kept" / "b.json"
    (line,) = section(made, "robustness")
    assert line == f"sub/test_make.py::test_make: baseline {path} written, a new baseline"
    told = json.loads(path.read_text())
    assert (told["model"], told["data"], told["seed"], told["n"]) == (
        "digits-cnn-at",
        "digits",
        0,
        N,
    )
    asked = {"attack": "pgd", "set": {"steps": "10"}, "norm": "linf", "eps": 0.15}
    assert told["trials"][0]["asked"] == asked
    assert told["note"]["reason"].endswith("sub/test_make.py::test_make")
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]

    before = path.read_bytes()
    done = run(inner, "sub", **{"sub/test_r": REGRESSION})
    assert path.read_bytes() == before
    done.assert_outcomes(passed=4, failed=4, warnings=2)
    text = done.stdout.str()
    (full,) = re.findall(r"^-+ robustness -+\n(FAIL: .*?)(?=^[_=])", text, re.M | re.S)
    pattern = r"FAIL: digits-cnn pgd: (\S+) % -> (\S+) %, drop .* points, (\d+) lost, (\d+) gained"
    match = re.match(pattern, full)
    assert match
    was, now, lost, gained = map(float, match.groups())
    marks = "".join(told["samples"]).count("+")
    assert was == 100 * marks / N
    assert now == pytest.approx(was - 100 * (lost - gained) / N)
    assert re.search(r"^digits-cnn clean: .*: (PASS|INCONCLUSIVE)", full, re.M)
    (names,) = re.findall(r"^lost, pgd: (.*) and (\d+) more$", full, re.M)
    assert len(names[0].split(", ")) == 10
    assert int(names[1]) == lost - 10

    assert "InconclusiveWarning: INCONCLUSIVE: digits-cnn-at" in text
    assert re.search(r"about \d+ more samples needed", text)
    for told in (
        "has attack [",
        "has n 40, the test asks for 30",
        "has seed 0, the test asks for 1",
    ):
        assert f"not comparable: {path} {told}" in text


def test_without_a_baseline(inner: Pytester) -> None:
    test = """
        def test(robustness):
            assert robustness.regression("digits-cnn-at", baseline="no/b.json")
    """
    done = run(inner, test_c=test)
    done.assert_outcomes(failed=1)
    told = section(done, "test")
    assert len(told) < 8
    assert any("b.json does not exist; run pytest --rbl-update-baseline once" in x for x in told)
    assert not (inner.path / "no").exists()


def test_update(inner: Pytester) -> None:
    path = inner.mkdir("kept") / "b.json"
    path.write_text("{")  # a damaged one
    without = """
    def test_without_eps(robustness):
        import robustbench_lite as rbl

        model, data = rbl.load_model("digits-cnn").model, rbl.load_data("digits")
        assert robustness.regression(model, data, "kept/c.json")
    """
    done = run(inner, "--rbl-update-baseline", test_c=MAKE + without)
    done.assert_outcomes(passed=1, failed=1)
    before = json.loads(path.read_text())
    assert before["n"] == N
    assert "nothing says how far the attack may go; give eps" in done.stdout.str()
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]

    other = """
        def test(robustness):
            assert robustness.regression("digits-cnn", baseline="kept/b.json")
    """
    done = run(inner, "--rbl-update-baseline", test_c=other)
    done.assert_outcomes(passed=1)
    after = json.loads(path.read_text())
    assert after["trials"] == before["trials"]
    assert after["ids"] == before["ids"]
    assert after["model"] == "digits-cnn"
    (line,) = section(done, "robustness")
    assert re.search(r"clean: .* % -> .*; pgd: \S+ % -> \S+ %, \d+ lost, \d+ gained$", line)


def test_no_update_in_continuous_integration(
    inner: Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    done = run(inner, "--rbl-update-baseline", test_c=MAKE)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --rbl-update-baseline: this is continuous integration" in done.stderr.str()
    assert not (inner.path / "kept").exists()


def test_two_workers(inner: Pytester) -> None:
    test = f"""
        import os
        import pytest

        @pytest.mark.parametrize("model", ["digits-cnn-at", "digits-cnn"])
        def test(robustness, record_property, model):
            record_property("pid", os.getpid())
            path = f"{{model}}.json"
            assert robustness.regression(model, baseline=path, policy="exact", {MAKING})
    """
    made = run(inner, "--rbl-update-baseline", "-n", "2", "--junitxml=j.xml", test_c=test)
    made.assert_outcomes(passed=2)
    assert {path.name for path in inner.path.glob("*.json*")} == {
        "digits-cnn-at.json",
        "digits-cnn.json",
    }
    assert len(section(made, "robustness")) == 2
    told = (inner.path / "j.xml").read_text()
    assert len(set(re.findall(r'name="pid" value="(\d+)"', told))) == 2
    assert told.count('<property name="robustness" value="baseline ') == 2

    done = run(inner, "-n", "2", test_c=test)  # not one sample differs
    done.assert_outcomes(passed=2)
    assert all("PASS" in line for line in section(done, "robustness"))


LIGHT = """
    import sys

    def test_light():
        assert "robustbench_lite.pytest_plugin" in sys.modules
        assert not {"torch", "numpy", "typer", "pydantic"} & sys.modules.keys()
"""
HEAVY = """
    import pytest

    @pytest.fixture
    def gate(robustness):
        return robustness

    def test_direct(robustness):
        pass

    def test_through_a_fixture(gate):
        pass
"""


def test_the_marker(inner: Pytester) -> None:
    options = ("-m", "not robustness", "--strict-markers")
    done = run(inner, *options, test_light=LIGHT, test_heavy=HEAVY)
    done.assert_outcomes(passed=1, deselected=2)
    assert "= robustness =" not in done.stdout.str()
    run(inner, "-m", "robustness", "--strict-markers").assert_outcomes(passed=2, deselected=1)
    assert "@pytest.mark.robustness: " in run(inner, "--markers").stdout.str()


def test_torch_is_not_imported_before_it_is_needed(inner: Pytester) -> None:
    """Not by collecting tests with the fixture either."""
    run(inner, test_light=LIGHT, test_a_heavy=HEAVY).assert_outcomes(passed=3)
