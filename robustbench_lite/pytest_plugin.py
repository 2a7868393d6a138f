"""A pytest plugin: the fixture `robustness` asks how robust a model is, and whether it still is.

Nothing heavy is imported before a test calls it. docs/ci.md tells how it is used.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustbench_lite.errors import InputError, RblError
from robustbench_lite.pytest_checks import (
    UPDATE,
    Result,
    Wanted,
    compared,
    data_of,
    measured,
    model_of,
    trial_of,
    updated,
)

if TYPE_CHECKING:
    from torch import nn

    from robustbench_lite.data import Dataset

_NAME = "robustness"


class InconclusiveWarning(pytest.PytestWarning):
    """A comparison with a baseline could not tell; the test passes."""


_RESULTS = pytest.StashKey[list[Result]]()


class Robustness:
    """What the fixture `robustness` is."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._item: pytest.Item = request.node
        self._updates = bool(request.config.getoption(UPDATE))

    def __repr__(self) -> str:
        return _NAME

    def check(
        self,
        model: str | nn.Module,
        data: str | Dataset,
        attack: str = "verdict",
        *,
        eps: float,
        norm: str = "linf",
        n: int | None = None,
        min_robust: float | None = None,
        seed: int = 0,
        **settings: object,
    ) -> Result:
        """Attack a model: true if its robust accuracy is `min_robust` or more.

        The robust accuracy of these very samples is compared: it is the same in every run. Its
        95 % interval is told; where `min_robust` lies within, other samples could say otherwise.
        It is false, too, where the figure cannot be trusted.
        """
        __tracebackhide__ = True

        def work() -> Result:
            from robustbench_lite.judge import evaluate

            if min_robust is not None and not 0 <= min_robust <= 1:
                raise InputError(f"min_robust is {min_robust:g}; give a share, such as 0.45")
            samples = data_of(data) if n is None else data_of(data).sample(n, seed)
            trial, _ = trial_of(attack, settings, norm, eps)
            classifier, _ = model_of(model)
            found = evaluate(classifier, trial.attack, trial.threat, samples, seed=seed)
            return measured(found, min_robust)

        return self._kept(_plainly(work))

    def regression(
        self,
        model: str | nn.Module,
        data: str | Dataset | None = None,
        baseline: str | Path = "robustness.json",
        *,
        margin: float = 0.02,
        alpha: float = 0.05,
        policy: str = "standard",
        attack: str | None = None,
        eps: float | None = None,
        norm: str | None = None,
        n: int | None = None,
        seed: int | None = None,
        **settings: object,
    ) -> Result:
        """Compare a model with a baseline, as `rbl check` does: false if it is less robust.

        Where the samples are too few to tell it is true, with an InconclusiveWarning. With
        `--rbl-update-baseline` the baseline is written instead: from attack to settings is what it
        is made with. Where all of these are left out, those of the file that is there hold.
        """
        __tracebackhide__ = True
        path = self._item.path.parent / baseline
        wanted = Wanted(model, data, attack, eps, norm, n, seed, settings)

        def work() -> Result:
            from robustbench_lite.gate import Policy, Rule

            if policy not in list(Policy):
                raise InputError(f"policy {policy!r} is unknown; give {', '.join(Policy)}")
            rule = Rule(margin, alpha, Policy(policy))
            if self._updates:
                return updated(path, wanted, f"pytest {UPDATE}: {self._item.nodeid}")
            return compared(path, wanted, rule)

        result = self._kept(_plainly(work))
        if result and any(f.needed for f in getattr(result.found, "findings", ())):
            warnings.warn(InconclusiveWarning(repr(result)), stacklevel=2)
        return result

    def _kept(self, result: Result) -> Result:
        self._item.stash.setdefault(_RESULTS, []).append(result)
        self._item.user_properties.append((_NAME, result.lines[0]))
        return result


def _plainly(work: Callable[[], Result]) -> Result:
    """Without the frames in which an error arose that is meant for the user."""
    __tracebackhide__ = True
    try:
        return work()
    except (RblError, OSError) as error:
        problem = str(error)
    pytest.fail(problem)


@pytest.fixture
def robustness(request: pytest.FixtureRequest) -> Robustness:
    """Ask how robust a model is (`check`), and whether it still is (`regression`)."""
    return Robustness(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that writes baselines."""
    group = parser.getgroup(_NAME)
    text = "write the baselines of robustness.regression() instead of comparing with them"
    group.addoption(UPDATE, action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """The marker; no update where baselines are there to be compared with."""
    line = f"{_NAME}: attacks a model; tests with the fixture {_NAME} have the marker by themselves"
    config.addinivalue_line("markers", line)
    if config.getoption(UPDATE) and os.environ.get("CI"):
        raise pytest.UsageError(
            f"{UPDATE}: this is continuous integration, where a baseline is compared with and not "
            "changed; update it by hand"
        )


def pytest_itemcollected(item: pytest.Item) -> None:
    """The marker of tests with the fixture."""
    if _NAME in getattr(item, "fixturenames", ()):
        item.add_marker(_NAME)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a failed test has found, in full: pytest cuts the line of an assertion."""
    report = yield
    if report.failed:
        report.sections += [(_NAME, str(result)) for result in item.stash.get(_RESULTS, [])]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a check, whichever process ran it."""
    found: dict[str, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            lines = [v for k, v in getattr(report, "user_properties", ()) if k == _NAME]
            found[report.nodeid] = max(found.get(report.nodeid, []), lines, key=len)
    told = [f"{test}: {line}" for test, lines in found.items() for line in lines]
    if told:
        terminalreporter.write_sep("=", _NAME)
        for line in told:
            terminalreporter.write_line(line)
