"""Checks of what an evaluation leaves alone, what it costs, and what it may not depend on."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.results import Outcome, Record
from robustbench_lite.testing.models import (
    Constant,
    DecisionsOnly,
    Problem,
    Recorder,
    ScoresOnly,
    conv_problem,
    generator,
    linear_problem,
)
from robustbench_lite.testing.trial import Trial, by_id, limited, require, seen_through
from robustbench_lite.threat import Access, Threat

_FEW = 12
_SOME = 20  # enough for an attack that searches in several rounds
_CLOSE = 1e-4
_CAPS = 1, 2, 3, 7, 10_000
_CAPS_ALONE = 1, 2, 7  # for which each sample is also attacked alone


def model_untouched(trial: Trial) -> str:
    """The model comes back bit by bit: modes, requires_grad, parameters, buffers, no .grad."""
    for threat in trial.threats:
        problem = conv_problem(12, shape=(3, 6, 6))
        inner = problem.model
        first = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(first.weight)
        model = Classifier(nn.Sequential(first, nn.Dropout(0.5), inner)).train()
        list(inner.children())[1].eval()  # a frozen batch norm inside a model in training
        for i, p in enumerate(model.parameters()):
            p.requires_grad_(i % 2 == 0)
        before, inside = _photograph(model), model.model
        trial.run(model, threat, problem.data)
        require(model.model is inside, f"{threat}: the model was replaced")
        after = _photograph(model)
        for what, value in before.items():
            require(after[what] == value, f"{threat}: {what} changed")
    return "modes, requires_grad, parameters, buffers, grad, hooks"


def process_untouched(trial: Trial) -> str:
    """Global random generators, thread count and torch's switches are as before."""
    trial = trial.shortened(_FEW)
    for threat in trial.threats:
        problem = conv_problem(12)
        before = _surroundings()
        trial.run(problem.model, threat, problem.data)
        after = _surroundings()
        for what, value in before.items():
            require(after[what] == value, f"{threat}: {what} changed")
    return ", ".join(_surroundings())


def batch_invariant(trial: Trial) -> str:
    """Records do not depend on batch size, order or shards (trap 3).

    Rounding differs between batch shapes, so a sample may differ where the adversarial image of
    either run lies within 1e-4 of the border: the gap between its two largest logits against the
    span of all its logits.
    """
    trial = trial.shortened(_SOME)
    differing = 0
    for threat in trial.threats:
        problem = conv_problem(48)
        first = by_id([trial.run(problem.model, threat, problem.data, batch_size=64)])
        for name, outcomes in _arrangements(trial, problem, threat, exact=False):
            for key, (record, adv) in by_id(outcomes).items():
                old, old_adv = first[key]
                if _alike(record, old, trial.minimal):
                    continue
                differing += 1
                close = _is_close(problem.model, torch.stack([adv, old_adv]), old.label)
                require(close, f"{threat}, {name}: {record} instead of {old}")
    return f"{differing} samples on the border differ"


def exact_invariant(trial: Trial) -> str:
    """In exact mode records and images are equal bit by bit (trap 3)."""
    trial = trial.shortened(_FEW)
    for threat in trial.threats:
        for asked in (threat, limited(threat, 5)):
            if not trial.attack.supports(asked):
                continue
            problem = conv_problem(48)
            first = by_id([trial.run(problem.model, asked, problem.data, exact=True)])
            for name, outcomes in _arrangements(trial, problem, asked, exact=True):
                for key, (record, adv) in by_id(outcomes).items():
                    old, old_adv = first[key]
                    require(record == old, f"{asked}, {name}: {record} instead of {old}")
                    same = torch.equal(adv, old_adv)
                    require(same, f"{asked}, {name}: another image for {key}")
    return "bit-equal"


def repeatable(trial: Trial) -> str:
    """The same seed gives the same outcome, whatever the global generators hold."""
    trial = trial.shortened(_FEW)
    for threat in trial.threats:
        problem = conv_problem(24)
        outcomes = []
        for noise in (1, 2):
            with _scrambled(noise):
                outcomes.append(trial.run(problem.model, threat, problem.data, seed=7))
        one, two = outcomes
        require(one.records == two.records, f"{threat}: records differ")
        same = torch.equal(one.adversarials, two.adversarials)
        require(same, f"{threat}: adversarial images differ")
    return "2 runs"


def query_cap(trial: Trial) -> str:
    """A sample never costs more passes than its cap, and the passes told are those that happened.

    The model counts by itself. What the judge asks on its own account is measured on the same
    images with wrong labels, which are not attacked.
    """
    trial = trial.shortened(_FEW)
    for threat in trial.threats:
        if not trial.attack.supports(limited(threat, 1)):
            return "not applicable: it takes no cap of queries"
        hard = Problem(Constant(), Dataset(conv_problem(5).data.x, torch.zeros(5).long()))
        for problem in (hard, linear_problem(threat, (0.01, 0.05, 0.3, 0.7, 2.0))):
            wrong = Dataset(problem.data.x, (problem.data.y + 1) % 2)
            idle, _ = _counted(trial, problem.model, threat, wrong)
            for cap in _CAPS:
                capped = limited(threat, cap)
                rows, outcome = _counted(trial, problem.model, capped, problem.data)
                told = sum(r.queries for r in outcome.records)
                checked = sum(r.size is not None for r in outcome.records)
                most = max(r.queries for r in outcome.records)
                require(most <= cap, f"{threat}: {most} queries with a cap of {cap}")
                asked = rows - idle - checked
                why = f"{threat}: {told} queries told, {asked} asked (cap {cap})"
                require(told == asked, why)
                alone = range(len(problem.data)) if cap in _CAPS_ALONE else ()
                for i in alone:
                    one = problem.data.take([i])
                    rows, outcome = _counted(trial, problem.model, capped, one)
                    asked = rows - idle // len(wrong) - (outcome.records[0].size is not None)
                    require(asked <= cap, f"{threat}: {asked} asked with a cap of {cap}")
    return "caps 1, 2, 3, 7 and 10000"


def access_kept(trial: Trial) -> str:
    """Less access than it needs is refused, and what it says it needs is enough."""
    needs = trial.attack.least_access
    trial = trial.shortened(_FEW)
    refused = 0
    for threat in trial.threats:
        problem = linear_problem(threat, (0.01, 0.5))
        for access in Access:
            allowed = seen_through(threat, access)
            full = Classifier(problem.model)
            poor = Classifier(_model_for(access, problem.model), access=access)
            if not trial.attack.supports(allowed):
                continue
            for model, given in ((full, allowed), (poor, threat), (poor, allowed)):
                try:
                    trial.run(model, given, problem.data)
                    got = True
                except UnsupportedError:
                    got = False
                why = f"{threat}: with {access.name} it "
                require(got == (access >= needs), why + ("worked" if got else "was refused"))
                refused += not got
    return f"needs {needs.name}; refused {refused} times"


def _model_for(access: Access, model: nn.Module) -> nn.Module:
    match access:
        case Access.DECISIONS:
            return DecisionsOnly(model)
        case Access.SCORES:
            return ScoresOnly(model)
    return model


def _counted(trial: Trial, model: nn.Module, threat: Threat, data: Dataset) -> tuple[int, Outcome]:
    recorder = Recorder(model)
    outcome = trial.run(recorder, threat, data)
    return recorder.rows, outcome


def _arrangements(
    trial: Trial, problem: Problem, threat: Threat, *, exact: bool
) -> Iterator[tuple[str, list[Outcome]]]:
    n = len(problem.data)
    shuffled = torch.randperm(n, generator=generator(5))
    # In exact mode the shuffled batches of 7 show what these would.
    plain = {} if exact else {"batches of 7": (7, [torch.arange(n)])}
    orders = plain | {
        "reversed": (64, [torch.arange(n).flip(0)]),
        "shuffled in batches of 7": (7, [shuffled]),
        "3 shards": (64, [shuffled[k::3] for k in range(3)]),
    }
    for name, (batch_size, parts) in orders.items():
        yield (
            name,
            [
                trial.run(
                    problem.model,
                    threat,
                    problem.data.take(part),
                    batch_size=batch_size,
                    exact=exact,
                )
                for part in parts
            ],
        )


def _alike(a: Record, b: Record, minimal: bool) -> bool:
    """Equal but for the last digits of size and gap, which come from rounding."""
    tolerance = 1e-2 if minimal else 1e-4
    one, two = a.size or 0.0, b.size or 0.0
    near = abs(one - two) <= tolerance * max(one, two)
    near &= abs((a.gap or 0.0) - (b.gap or 0.0)) <= _CLOSE
    return replace(a, size=None, gap=None) == replace(b, size=None, gap=None) and near


def _is_close(model: nn.Module, images: Tensor, label: int) -> bool:
    with torch.no_grad():
        logits = model(images)
    own = logits[:, label]
    others = logits.scatter(1, torch.full((len(images), 1), label), -torch.inf).amax(1)
    span = logits.amax(1) - logits.amin(1)
    return bool(((others - own).abs() <= _CLOSE * span).any())


class _scrambled:  # noqa: N801  # reads as the context it makes
    """Inside, the global generators hold something else; afterwards what they held before."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        random.seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.saved[0])
        np.random.set_state(self.saved[1])
        random.setstate(self.saved[2])


def _photograph(model: nn.Module) -> dict[str, object]:
    return {
        "a training mode": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "a parameter or buffer": [
            (name, value.dtype, value.stride(), value.numpy().tobytes())
            for name, value in model.state_dict().items()
        ],
        "the identity of a tensor": [id(v) for v in [*model.parameters(), *model.buffers()]],
        ".grad": [p.grad is None for p in model.parameters()],
        "a hook": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    }


def _surroundings() -> dict[str, object]:
    state = np.random.get_state(legacy=False)
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's generator": str(state),
        "python's generator": random.getstate(),
        "thread count": torch.get_num_threads(),
        "gradient switch": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic switch": torch.are_deterministic_algorithms_enabled(),
    }
