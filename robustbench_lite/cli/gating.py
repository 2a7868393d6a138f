"""What the commands of the gate share: how a baseline asks for its attacks, and how models come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_lite.cli import options, subjects, threats

if TYPE_CHECKING:
    from robustbench_lite.baseline import Baseline
    from robustbench_lite.card import Profile
    from robustbench_lite.checking import Check
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset
    from robustbench_lite.stream import Stream
    from robustbench_lite.suite import Trial


@dataclass(frozen=True)
class Asked:
    """The options that say how to attack, as texts."""

    attacks: Sequence[str]
    values: Mapping[str, str]
    effort: str | None
    norm: str | None
    eps: str | None
    threat: str | None

    def trials(self, profile: Profile) -> list[tuple[Trial, dict[str, Any]]]:
        """Each attack in the threat, and how to ask for it again whatever the model's card says."""
        from robustbench_lite.suite import Trial
        from robustbench_lite.threat import Lp

        distance = None if self.eps is None else options.number(self.eps, "--eps")
        asked = (
            threats.threat_of(self.norm, distance, profile)
            if self.threat is None
            else threats.other_than_a_norm(self.threat, self.norm, self.eps)
        )
        efforts = options.with_effort(self.attacks, self.effort)
        plans = {n: options.plan_of(n, efforts[n] | dict(self.values)) for n in self.attacks}
        threats.check_supported(plans, asked)
        ball = (
            {"norm": str(asked.norm), "eps": asked.eps}
            if isinstance(asked, Lp)
            else {"threat": self.threat}
        )
        return [
            (Trial(n, plan, asked), {"attack": n, "set": efforts[n] | dict(self.values)} | ball)
            for n, plan in plans.items()
        ]


def trials_again(baseline: Baseline) -> tuple[Trial, ...]:
    """The trials that a baseline was made with, as the installed attacks are.

    Raises:
        InputError: an attack or a threat is not there any more.
    """
    from robustbench_lite.suite import Trial
    from robustbench_lite.threat import Lp, Norm

    made = []
    for told in baseline.trials:
        asked = told["asked"]
        threat = (
            threats.other_than_a_norm(asked["threat"], None, None)
            if "threat" in asked
            else Lp(Norm(asked["norm"]), asked["eps"])
        )
        made.append(Trial(told["name"], options.plan_of(asked["attack"], asked["set"]), threat))
    return tuple(made)


def ranked(data: Dataset | Stream, n: int, seed: int) -> Dataset:
    """`n` samples in the order in which a gate looks at them."""
    from robustbench_lite.data import Dataset, rank_of

    drawn = data.sample(n, seed)
    some = drawn if isinstance(drawn, Dataset) else drawn.load()
    order = sorted(range(len(some)), key=lambda i: rank_of(seed, some.ids[i]))
    return some.take(order)


def check_of(model: str, path: Path, data: str | None, device: str) -> Check:
    """A model, a baseline and the baseline's samples.

    Raises:
        BaselineError: the baseline is missing, or about something else.
        InputError: there is no such model, or it cannot take the data.
    """
    from robustbench_lite.baseline import read_baseline

    short = read_baseline(path)
    classifier, profile = subjects.model_of(model, options.device_of(device))
    whole = subjects.opened(data or short.data, profile, classifier.classes)
    return check_on(classifier, path, whole)


def check_on(classifier: Classifier, path: Path, whole: Dataset | Stream) -> Check:
    """A loaded model, a baseline, and the baseline's samples among those of `whole`.

    Raises:
        BaselineError: the baseline is missing, or about something else.
    """
    from robustbench_lite.baseline import read_baseline
    from robustbench_lite.checking import Check
    from robustbench_lite.data import Dataset

    if not isinstance(whole, Dataset):
        whole = whole.among(read_baseline(path).ids)
    baseline = read_baseline(path, whole.ids)
    place = {sample: row for row, sample in enumerate(whole.ids)}
    samples = whole.take([place[sample] for sample in baseline.ids])
    trials = trials_again(baseline)
    threats.check_access({t.name: t.attack for t in trials}, trials[0].threat, classifier)
    return Check(classifier, baseline, samples, trials)


def note_of(reason: str) -> dict[str, Any]:
    """Who writes a baseline, when, why and with what."""
    import getpass
    import os
    import time

    from robustbench_lite.unit import versions

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        user = str(os.getuid())
    return {
        "reason": reason,
        "by": user,
        "when": time.strftime("%Y-%m-%d"),
        "versions": versions(),
    }
