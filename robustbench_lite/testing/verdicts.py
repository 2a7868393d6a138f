"""Checks of what an evaluation reports: accuracies, adversarial images, shapes, errors."""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from robustbench_lite.data import Dataset
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.goal import Choice, Targeted
from robustbench_lite.results import Outcome, as_bytes
from robustbench_lite.testing.models import (
    Band,
    Broken,
    Constant,
    Problem,
    Recorder,
    Skittish,
    conv_problem,
    labelled,
    linear_problem,
    reach,
    signed_weights,
)
from robustbench_lite.testing.trial import Trial, broken_rows, norm_of, require
from robustbench_lite.threat import Lp, Norm, Threat

_NEAR_AND_FAR = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.5, 3.0, 6.0)
_SHAPES = ((1, 1, 1), (1, 28, 28), (3, 17, 5), (1, 1, 9))
_CLASSES = (2, 3, 5, 10, 1000)


def eps_zero(trial: Trial) -> str:
    """At eps = 0 nothing is found and robust accuracy is clean accuracy."""
    tried = 0
    for threat in trial.balls:
        nothing = replace(threat, eps=0.0)
        if not trial.attack.supports(nothing):
            continue
        tried += 1
        problem = conv_problem(16)
        data = with_wrong_labels(problem.data, 4)
        outcome = trial.run(problem.model, nothing, data)
        require(outcome.clean_accuracy == 0.75, f"clean accuracy {outcome.clean_accuracy}")
        require(
            outcome.robust_accuracy == outcome.clean_accuracy,
            f"{threat}: robust {outcome.robust_accuracy} at eps 0",
        )
        require(torch.equal(outcome.adversarials, data.x), f"{threat}: an image was changed")
    return f"{tried} norms" if tried else "not applicable: eps = 0 is not supported"


def eps_monotone(trial: Trial) -> str:
    """Robust accuracy never rises with eps."""
    for threat in trial.balls:
        problem = linear_problem(threat, _NEAR_AND_FAR)
        grid = [max(1.0, f * threat.eps) if threat.norm is Norm.L0 else f * threat.eps
                for f in (0.05, 0.25, 1.0, 4.0)]  # fmt: skip
        curve = [
            trial.run(problem.model, replace(threat, eps=eps), problem.data).robust_accuracy
            for eps in grid
        ]
        require(
            all(a >= b for a, b in pairwise(curve)),
            f"{threat}: robust accuracy {curve} at eps {grid}",
        )
    return "4 eps" if trial.balls else "not applicable: its threat has no eps"


def finds_something(trial: Trial) -> str:
    """Images that stand at a hundredth of eps from another class are not all robust."""
    found = 0
    for threat in trial.threats:
        problem = linear_problem(threat, (0.01,) * 16)
        outcome = trial.run(problem.model, threat, problem.data)
        require(len(broken_rows(outcome)) > 0, f"{threat}: 0 of 16 found at 0.01 eps")
        found += len(broken_rows(outcome))
    return f"{found} of {16 * len(trial.threats)} found"


def examples_hold(trial: Trial) -> str:
    """Every reported example is finite, in the box, within eps and fools the original model."""
    found = 0
    for threat in trial.threats:
        for problem in (conv_problem(32), linear_problem(threat, _NEAR_AND_FAR, classes=5)):
            outcome = trial.run(problem.model, threat, problem.data)
            require_examples(outcome, problem, threat)
            found += len(broken_rows(outcome))
    return f"{found} examples"


def failed_return_input(trial: Trial) -> str:
    """A sample that was not broken comes back as exactly its own image."""
    kept = 0
    for threat in trial.threats:
        problem = linear_problem(threat, _NEAR_AND_FAR)
        small = replace(threat, eps=0.3 * threat.eps) if isinstance(threat, Lp) else threat
        outcome = trial.run(problem.model, small, problem.data)
        broken = set(broken_rows(outcome).tolist())
        for i in set(range(len(problem.data))) - broken:
            same = torch.equal(outcome.adversarials[i], problem.data.x[i])
            require(same, f"{threat}: sample {i} was not broken but its image was changed")
            kept += 1
    return f"{kept} samples"


def bytes_hold(trial: Trial) -> str:
    """Examples of 8-bit images, saved in 8 bits, are within the threat (trap 8)."""
    saved = 0
    for threat in trial.threats:
        problem = conv_problem(24)
        data = labelled(problem.model, (problem.data.x * 255).round() / 255).data
        outcome = trial.run(problem.model, threat, data)
        images, inside = as_bytes(outcome, data)
        require(images.dtype == torch.uint8, f"saved as {images.dtype}")
        if isinstance(threat, Lp):
            size = norm_of((images / 255).double() - data.x.double(), threat.norm)
            fits = size <= threat.eps * (1 + 1e-5) + 1e-6
            require(bool(fits.all()), f"{threat}: a saved image is {float(size.max()):.6g} away")
        require(bool(inside.all()), f"{threat}: a saved image is said to be outside")
        kept = [i for i in range(len(data)) if i not in broken_rows(outcome).tolist()]
        original = (data.x[kept] * 255).round().to(torch.uint8)
        require(torch.equal(images[kept], original), f"{threat}: an unbroken image changed")
        saved += len(images)
    return f"{saved} images"


def class_counts(trial: Trial) -> str:
    """2, 3, 5, 10 and 1000 classes (traps 6 and 13)."""
    for threat in trial.threats:
        for classes in _CLASSES:
            problem = linear_problem(threat, (0.01,) * 8 + (3.0,) * 2, classes=classes)
            require_examples(trial.run(problem.model, threat, problem.data), problem, threat)
    return ", ".join(map(str, _CLASSES))


def image_shapes(trial: Trial) -> str:
    """One pixel, one row, non-square, one and three channels (trap 6)."""
    for threat in trial.threats:
        for shape in _SHAPES:
            problem = linear_problem(threat, (0.01,) * 4 + (0.5,), shape=shape, classes=3)
            require_examples(trial.run(problem.model, threat, problem.data), problem, threat)
            problem = conv_problem(4, shape=shape)
            require_examples(trial.run(problem.model, threat, problem.data), problem, threat)
    return ", ".join("x".join(map(str, shape)) for shape in _SHAPES)


def wrong_samples(trial: Trial) -> str:
    """What the model gets wrong is not attacked and not counted as robust (trap 15)."""
    for threat in trial.threats:
        problem = conv_problem(16)
        data = with_wrong_labels(problem.data, 8)
        outcome = trial.run(problem.model, threat, data)
        for i, record in enumerate(outcome.records[:8]):
            require(not record.correct and not record.robust, f"{threat}: sample {i} counts")
            require(record.queries == 0, f"{threat}: sample {i}: {record.queries} queries")
            require(record.size is None, f"{threat}: sample {i} has a size")
        require(torch.equal(outcome.adversarials[:8], data.x[:8]), "a wrong sample was changed")
        require(outcome.clean_accuracy == 0.5, f"clean accuracy {outcome.clean_accuracy}")
        right = trial.run(problem.model, threat, data.take(range(8, 16)))
        require(
            outcome.robust_accuracy * 16 == right.robust_accuracy * 8,
            f"{threat}: wrong samples change the robust accuracy",
        )
    return "8 wrong samples"


def nan_is_an_error(trial: Trial) -> str:
    """NaN logits, from the start or once the image has moved, are an error and never robust."""
    for threat in trial.threats:
        problem = linear_problem(threat, (0.01, 0.5, 3.0) * 4)
        x = problem.data.x.clamp(0.05, 0.95)
        known = labelled(problem.model, x).data
        spoiled = x.clone()
        spoiled[::3, 0, 0, 0] = 1.0  # outside what the model below can take
        data = Dataset(spoiled, known.y)
        outcome = trial.run(Broken(problem.model, 0.0, 0.96), threat, data)
        for i, record in enumerate(outcome.records[::3]):
            require(record.error != "", f"{threat}: sample {3 * i} has NaN and no error")
            require(not record.robust, f"{threat}: sample {3 * i} has NaN and is robust")
        require(bool(outcome.doubts), f"{threat}: NaN leaves no doubt")

        moved = trial.run(Skittish(problem.model, x), threat, known)
        for i, record in enumerate(moved.records):
            require(record.correct, f"{threat}: sample {i} is not correct")
            require(record.error != "", f"{threat}: NaN after a move is no error")
            require(not record.robust, f"{threat}: NaN after a move counts as robust")
        require(torch.equal(moved.adversarials, known.x), f"{threat}: a NaN example was kept")
    return "NaN at the start and after a move"


def targeted(trial: Trial) -> str:
    """With a targeted goal every example is of the target class (trap 12)."""
    found = 0
    for threat in trial.threats:
        problem = linear_problem(threat, (0.02,) * 24, classes=3)
        try:
            outcome = trial.run(problem.model, threat, problem.data, goal=Targeted(Choice.NEXT))
        except UnsupportedError as refusal:
            return f"not applicable: {refusal}"
        rows = broken_rows(outcome)
        with torch.no_grad():
            predicted = problem.model(outcome.adversarials[rows]).argmax(1)
        target = (problem.data.y[rows] + 1) % 3
        require(
            torch.equal(predicted, target),
            f"{threat}: {int((predicted != target).sum())} of {len(rows)} miss the target",
        )
        found += len(rows)
    return f"{found} reached" if found else "not applicable: no target was reached"


def hopeless(trial: Trial) -> str:
    """A model that cannot be fooled is not fooled, and the images come back (trap 5)."""
    for threat in trial.threats:
        data = Dataset(conv_problem(6).data.x, torch.zeros(6, dtype=torch.long))
        outcome = trial.run(Constant(), threat, data)
        require(outcome.robust_accuracy == 1.0, f"{threat}: {outcome.robust_accuracy} robust")
        require(torch.equal(outcome.adversarials, data.x), f"{threat}: an image was changed")
        require(outcome.sizes == [], f"{threat}: sizes {outcome.sizes}")
        require(not any(r.error for r in outcome.records), f"{threat}: {outcome.doubts}")
    return "0 successes"


def best_is_kept(trial: Trial) -> str:
    """Whatever was asked and fooled counts, wherever the search went then (trap 11).

    What the judge asks before the attack is left out: as much as where there is nothing to attack.
    """
    passed = 0
    for threat in trial.balls:
        weight = signed_weights(1, 36, 3)[0]
        far = reach(weight, threat)
        data = Dataset(torch.full((1, 1, 6, 6), 0.5), torch.zeros(1, dtype=torch.long))
        wrong = Dataset(data.x, data.y + 1)
        for place in (0.05, 0.15, 0.35, 0.6):
            band = Band(weight, place * far, 0.04 * far)
            idle, recorder = Recorder(band), Recorder(band, keep=True)
            trial.run(idle, threat, wrong)
            outcome = trial.run(recorder, threat, data)
            with torch.no_grad():
                seen = torch.cat(recorder.seen)[idle.rows :]
                fooling = seen[recorder.model(seen).argmax(1) == 1]
            size = norm_of(fooling.double() - data.x.double(), threat.norm)
            broken = not outcome.records[0].robust
            inside = bool((size <= threat.eps).any())
            near = bool((size <= threat.eps * (1 + 1e-4)).any())  # at eps itself, rounding decides
            require(broken or not inside, f"{threat}: a query fooled and does not count")
            require(near or not broken, f"{threat}: no query fooled, but it is broken")
            passed += broken
            if trial.minimal and len(size):
                best = outcome.records[0].size
                require(
                    best is not None and best <= float(size.min()) + 1e-6,
                    f"{threat}: a query at {float(size.min())} fooled, but {best} is reported",
                )
    if not trial.balls:
        return "not applicable: its threat has no eps"
    return f"{passed} of {4 * len(trial.balls)} fooled"


def require_examples(outcome: Outcome, problem: Problem, threat: Threat) -> None:
    """Check each reported example by means of its own; there may be none."""
    rows = broken_rows(outcome)
    errors = [r.error for r in outcome.records if r.error]
    require(not errors, f"{threat}: {errors[:1]}")
    adv, x = outcome.adversarials[rows], problem.data.x[rows]
    require(bool(torch.isfinite(adv).all()), f"{threat}: an example is not finite")
    require(bool(((adv >= 0) & (adv <= 1)).all()), f"{threat}: an example leaves the box")
    reported = [outcome.records[i].size for i in rows.tolist()]
    told = torch.tensor([float("nan") if s is None else s for s in reported], dtype=torch.float64)
    if isinstance(threat, Lp):
        size = norm_of(adv.double() - x.double(), threat.norm)
        slack = 1e-5 * threat.eps + 1e-7
        require(bool((size <= threat.eps + slack).all()), f"{threat}: size {size.tolist()}")
        require(torch.allclose(told, size, rtol=1e-9, atol=1e-12), f"{threat}: sizes are wrong")
    elif threat.origin(x).shape == x.shape:
        require(bool(threat.contains(x, adv).all()), f"{threat}: an example is outside")
        require(torch.equal(told, threat.size(x, adv)), f"{threat}: sizes are wrong")
    with torch.no_grad():
        logits: Tensor = problem.model(adv)
    require(bool(torch.isfinite(logits).all()), f"{threat}: an example gives NaN")
    fooled = logits.argmax(1) != problem.data.y[rows]
    require(bool(fooled.all()), f"{threat}: an example does not fool the original model")


def with_wrong_labels(data: Dataset, count: int) -> Dataset:
    """The first `count` labels moved to the next class."""
    y = data.y.clone()
    y[:count] = (y[:count] + 1) % 5
    return Dataset(data.x, y)
