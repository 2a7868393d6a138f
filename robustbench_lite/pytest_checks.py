"""What the fixture `robustness` finds out, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from robustbench_lite.baseline import Baseline
    from robustbench_lite.card import Profile
    from robustbench_lite.checking import Checked
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset
    from robustbench_lite.gate import Rule
    from robustbench_lite.results import Outcome
    from robustbench_lite.suite import Trial
    from robustbench_lite.trust import Doubt

UPDATE = "--rbl-update-baseline"
_SAMPLES = 1000  # of a new baseline
_NAMED = 10
_ROUNDING = 1e-9  # of a share that a test has computed


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """What came out of a check; it is true if the test may pass.

    `repr` is one line, `str` several; pytest cuts the former, a failed test reports the latter.

    Attributes:
        passed: may the test pass?
        lines: what was found, the most important first.
        found: figures and samples; None where a baseline was written.
    """

    passed: bool
    lines: tuple[str, ...]
    found: Outcome | Checked | None = None

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return "; ".join(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Wanted:
    """What a test wants; None where it leaves that to the baseline or to the model."""

    model: str | nn.Module
    data: str | Dataset | None
    attack: str | None
    eps: float | None
    norm: str | None
    n: int | None
    seed: int | None
    settings: Mapping[str, object]

    @property
    def asks(self) -> bool:
        """Does it say how to attack?"""
        return bool(self.settings) or {self.attack, self.eps, self.norm} != {None}

    def asked(self, profile: Profile | None) -> tuple[Trial, dict[str, Any]]:
        """How to attack, and how to ask for that."""
        norm = self.norm or (str(profile.norm) if profile else "linf")
        eps = self.eps
        if eps is None and profile and norm == profile.norm:
            eps = profile.eps
        if eps is None:
            raise InputError("nothing says how far the attack may go; give eps")
        return trial_of(self.attack or "verdict", self.settings, norm, eps)

    def check_made_so(self, path: Path, baseline: Baseline, profile: Profile | None) -> None:
        """Was the baseline made as the test says?"""
        pairs: list[tuple[str, object, object]] = [
            ("n", len(baseline.ids), self.n),
            ("seed", baseline.seed, self.seed),
        ]
        if self.asks:
            asked = [trial["asked"] for trial in baseline.trials]
            pairs.append(("attack", asked, [self.asked(profile)[1]]))
        for name, was, now in pairs:
            if now not in (None, was):
                raise InputError(
                    f"the baseline is not comparable: {path} has {name} {was}, the test asks for "
                    f"{now}; make it anew with pytest {UPDATE}"
                )


def compared(path: Path, wanted: Wanted, rule: Rule) -> Result:
    """Compare with the baseline that is there."""
    if not path.is_file():
        raise InputError(
            f"baseline {path} does not exist; run pytest {UPDATE} once, outside of continuous "
            "integration, and keep the file with the test"
        )
    from robustbench_lite.baseline import read_baseline
    from robustbench_lite.checking import checked
    from robustbench_lite.cli.gating import check_on

    short = read_baseline(path)
    classifier, profile = model_of(wanted.model)
    whole = data_of(short.data if wanted.data is None else wanted.data)
    wanted.check_made_so(path, short, profile)
    (found,), _ = checked([check_on(classifier, path, whole)], rule)
    return _decided(found, path)


def updated(path: Path, wanted: Wanted, reason: str) -> Result:
    """Write the baseline anew."""
    from robustbench_lite import baseline as file
    from robustbench_lite.cli.files import temporary
    from robustbench_lite.cli.gating import note_of, ranked, trials_again
    from robustbench_lite.judge import evaluate

    try:
        before = file.read_baseline(path)
    except file.BaselineError:  # it is missing, or damaged and of no use
        before = None
    classifier, profile = model_of(wanted.model)
    if before is None or wanted.asks:
        made = [wanted.asked(profile)]
    else:
        told = [dict(trial["asked"]) for trial in before.trials]
        made = list(zip(trials_again(before), told, strict=True))
    source = wanted.data or (before.data if before else profile.test_data if profile else "")
    if not source:
        raise InputError("nothing says which data the model is attacked on; give data")
    seed = wanted.seed if wanted.seed is not None else before.seed if before else 0
    n = wanted.n or (len(before.ids) if before else _SAMPLES)
    whole = data_of(source)
    samples = ranked(whole, n, seed)
    outcomes = [evaluate(classifier, t.attack, t.threat, samples, seed=seed) for t, _ in made]
    name = source if isinstance(source, str) else whole.name
    trials = [file.told_trial(*one) for one in made]
    after = file.baseline_of(classifier.name, name, trials, outcomes, note_of(reason))
    changes = file.changed(before, file.shortened(after)) if before else ["a new baseline"]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary(path).write_text(file.baseline_text(after), "utf-8")
    temporary(path).replace(path)
    doubts = [f"{d.trust}: {d}" for o in outcomes for d in o.doubts]
    lines = [f"baseline {path} written, {'; '.join(changes)}", *dict.fromkeys(doubts)]
    return Result(True, tuple(lines))


def measured(found: Outcome, least: float | None) -> Result:
    """What one evaluation says."""
    from robustbench_lite.cli.screen import distance

    low, high = found.robust_ci95
    right = sum(r.robust for r in found.records)
    answer = "FAIL" if least is not None and right / found.n < least - _ROUNDING else "PASS"
    wanted = "" if least is None else f", at least {100 * least:.1f} % wanted"
    figures = (
        f"{found.model}: robust {100 * right / found.n:.1f} %, 95 % CI {100 * low:.1f} to "
        f"{100 * high:.1f}, {right} of {found.n}{wanted}"
    )
    clean, (low_clean, high_clean) = found.clean_accuracy, found.clean_ci95
    more = [
        f"clean {100 * clean:.1f} %, 95 % CI {100 * low_clean:.1f} to {100 * high_clean:.1f}",
        f"{found.attack}, {distance(found.threat)}, {found.data}, seed {found.seed}",
    ]
    if least is not None and low <= least <= high:
        more.append("what is wanted lies within the interval: other samples could say otherwise")
    return _result(answer, [figures], more, found.doubts, found)


def _decided(found: Checked, path: Path) -> Result:
    from robustbench_lite.gate import Answer, overall
    from robustbench_lite.gate_files import sentence

    answers = list(Answer)
    worst_first = sorted(found.findings, key=lambda f: -answers.index(f.answer))
    more = [f"baseline {path}, {found.n} samples of {found.data}"]
    for name, lost in found.lost.items():
        if lost:
            others = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            more.append(f"lost, {name}: {', '.join(lost[:_NAMED])}{others}")
    sentences = [sentence(found.model, finding) for finding in worst_first]
    answer = overall(found.findings).upper()
    return _result(answer, sentences, more, found.doubts, found)


def _result(
    answer: str,
    figures: Sequence[str],
    more: Sequence[str],
    doubts: Sequence[Doubt],
    found: Outcome | Checked,
) -> Result:
    """Figures that cannot be trusted let no test pass, and that comes first."""
    from robustbench_lite.trust import Trust, least

    told = [f"{doubt.trust}: {doubt}" for doubt in doubts]
    if least(doubts) is Trust.FAIL:
        lines = [*told, *figures, *more]
        return Result(False, (f"NOT TO BE TRUSTED: {lines[0]}", *lines[1:]), found)
    lines = [*figures, *told, *more]
    return Result(answer != "FAIL", (f"{answer}: {lines[0]}", *lines[1:]), found)


def model_of(model: str | nn.Module) -> tuple[Classifier, Profile | None]:
    """The model, with its profile where it was named."""
    from robustbench_lite.classifier import as_classifier
    from robustbench_lite.cli.options import device_of
    from robustbench_lite.cli.subjects import model_of as named

    if isinstance(model, str):
        return named(model, device_of("auto"))
    return as_classifier(model), None


def data_of(data: str | Dataset) -> Dataset:
    """The samples, loaded where they were named."""
    from robustbench_lite.registry import load_data

    return load_data(data) if isinstance(data, str) else data


def trial_of(
    attack: str, settings: Mapping[str, object], norm: str, eps: float
) -> tuple[Trial, dict[str, Any]]:
    """How to attack, and how to ask for that in a baseline."""
    from robustbench_lite.registry import load_attack
    from robustbench_lite.suite import Trial
    from robustbench_lite.threat import Lp, Norm

    if norm not in list(Norm):
        raise InputError(f"norm {norm!r} is unknown; choose from {', '.join(Norm)}")
    values = {"effort": "quick"} if attack == "verdict" else {}
    values |= {key: str(value) for key, value in settings.items()}
    trial = Trial(attack, load_attack(attack, **values), Lp(Norm(norm), eps))
    return trial, {"attack": attack, "set": values, "norm": str(norm), "eps": eps}
