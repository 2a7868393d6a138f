"""The work of `rbl train`: the recipe, the training, the measurement, the files."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_lite.cli import files
from robustbench_lite.errors import UNREADABLE_TOML, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Measured, Recipe
    from robustbench_lite.classifier import Classifier
    from robustbench_lite.data import Dataset
    from robustbench_lite.results import Outcome
    from robustbench_lite.team import Team
    from robustbench_lite.threat import Lp
    from robustbench_lite.train import Probe, Progress

_LEAK = 100  # a hundredth: natural duplicates are fewer
_HELD_OUT = 500


def recipe_of(path: Path | None, changes: dict[str, Any]) -> Recipe:
    """The recipe of a file with some fields changed; None changes nothing.

    Raises:
        InputError: the file cannot be read, or a value does not fit its field.
    """
    import tomllib

    from pydantic import ValidationError

    from robustbench_lite.card import Recipe
    from robustbench_lite.settings import first_problem

    start: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except UNREADABLE_TOML as error:
            raise InputError(f"--recipe {path} cannot be read ({error}); check the path") from error
        start = table.get("recipe", table)
        if not isinstance(start, dict):
            raise InputError(f"--recipe {path}: recipe is not a table; write [recipe] above it")
    try:
        return Recipe.model_validate(start | {k: v for k, v in changes.items() if v is not None})
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        option = "--set" if field == "defense_set" else f"--{field.replace('_', '-')}"
        file = "" if path is None else f" of --recipe {path}"
        raise InputError(
            f"the recipe{file} is not usable: {first_problem(error)}; give or change {option}"
        ) from error


def usual_check(recipe: Recipe, test: Dataset) -> str:
    """The attack that measures a card's robustness where none is named."""
    from robustbench_lite.models import untrained
    from robustbench_lite.threat import Access

    _, channels, size, _ = test.x.shape
    gives = untrained(recipe, int(test.y.max()) + 1, channels, size, recipe.arch).access
    return "pgd" if gives >= Access.GRADIENTS else "square"


@dataclass(frozen=True)
class Exam:
    """How the card's accuracies are measured.

    Attributes:
        data: the test samples.
        named: the data by a name that others can load.
        threat: what the model is meant to be measured under.
        attack: name of the attack.
        plan: the attack.
        n: samples.
        beside: other models that take it too.
    """

    data: Dataset
    named: str
    threat: Lp
    attack: str
    plan: Plan
    n: int
    beside: tuple[str, ...] = ()


def learn(
    recipe: Recipe,
    out: Path,
    exam: Exam,
    summary: str,
    device: torch.device,
    tensorboard: Path | None,
) -> None:
    """Train, measure, write weights and card, print the measurement.

    Started several times by torchrun, all train together and one does the rest.

    Raises:
        InputError: the recipe cannot be followed.
    """
    from safetensors.torch import save

    from robustbench_lite import models, registry
    from robustbench_lite.card import Card, card_text
    from robustbench_lite.cli import progress, screen
    from robustbench_lite.cli.tensorboard import writing
    from robustbench_lite.data import Split
    from robustbench_lite.defense import Training
    from robustbench_lite.judge import evaluate
    from robustbench_lite.team import Team
    from robustbench_lite.train import ids_digest, train

    test, threat, plan = exam.data, exam.threat, exam.plan
    team = Team.of_environment()
    recipe = _shared(recipe, team)
    defense = registry.load_defense(recipe.defense, **recipe.defense_set)
    if not isinstance(defense, Training):
        raise InputError(
            f"defense {recipe.defense!r} is not trained in; "
            f"write it behind a model, as mnist-cnn+{recipe.defense}"
        )
    if defense.collapses and "holdout" not in recipe.model_fields_set:
        recipe = recipe.model_copy(update={"holdout": _HELD_OUT})
    if recipe.freeze != "none" and not recipe.init_from:
        raise InputError("--freeze backbone leaves nothing to learn from; give --init-from too")
    if recipe.init_from and not recipe.init_sha256:
        digest = models.load_card(recipe.init_from).sha256
        recipe = recipe.model_copy(update={"init_sha256": digest})
    compared = [_beside(spec, test, threat, plan) for spec in exam.beside]
    learned = registry.load_data(recipe.data, Split.TRAIN)
    if recipe.exclude:
        learned = learned.without(registry.load_data(recipe.exclude))
    if recipe.per_class:
        learned = learned.each_class(recipe.per_class, recipe.seed)
    seen = len(set(learned.ids) & set(test.ids))
    if seen * _LEAK > len(test):
        raise InputError(
            f"{seen} of the {len(test)} test samples are training samples too; "
            "give other --test-data, or --exclude them"
        )
    classes = int(max(learned.y.max(), test.y.max())) + 1
    _, channels, size, columns = learned.x.shape
    if size != columns or test.x.shape[1:] != learned.x.shape[1:]:
        raise InputError(
            f"training images have shape {tuple(learned.x.shape[1:])} and test images "
            f"{tuple(test.x.shape[1:])}; both must be the same square"
        )
    checkpoint = out.with_suffix(".checkpoint")
    shown = progress.training(out.stem) if team.leads else nullcontext(_silently)
    with shown as bar, writing(tensorboard if team.leads else None, bar) as report:
        classifier, minutes = train(
            recipe,
            lambda: models.begin_from(
                models.untrained(recipe, classes, channels, size, out.stem), recipe
            ),
            defense,
            learned,
            checkpoint,
            report,
            _probe(recipe),
            team=team,
            device=_own(device, team),
        )
    if not team.leads:
        return
    module = classifier.model
    weights = save({k: v.cpu().contiguous() for k, v in module.state_dict().items()})
    sample = test.sample(exam.n)
    outcome = evaluate(classifier, plan, threat, sample)
    rows = [(exam.attack, outcome)]
    rows += [(other.name, evaluate(other, plan, threat, sample)) for other in compared]
    card = Card(
        name=out.stem,
        summary=summary,
        classes=classes,
        channels=channels,
        size=size,
        parameters=sum(p.numel() for p in module.parameters()) or _numbers(module),
        test_data=exam.named,
        norm=recipe.norm,
        eps=threat.eps,
        train_samples=len(learned),
        train_ids_sha256=ids_digest(learned),
        train_minutes=round(minutes, 2),
        sha256=hashlib.sha256(weights).hexdigest(),
        recipe=recipe,
        measured=_measured(outcome, sample.name),
        beside={label: _measured(other, sample.name) for label, other in rows[1:]},
    )
    files.write_whole({out: weights, out.with_suffix(".toml"): card_text(card).encode()})
    checkpoint.unlink(missing_ok=True)  # what is fitted at once has none
    screen.show_table(screen.attack_title(outcome), screen.attack_table(rows))
    screen.show_doubts([o for _, o in rows])


def _silently(progress: Progress) -> None:
    """What those show who do not lead."""


def _shared(recipe: Recipe, team: Team) -> Recipe:
    """The recipe for as many processes as there are, which decide the weights too."""
    if recipe.processes not in (1, team.size):
        raise InputError(
            f"the recipe is for {recipe.processes} processes, and there are {team.size}; start it "
            f"as torchrun --nproc-per-node {recipe.processes} --no-python -- rbl train ..."
        )
    return recipe.model_copy(update={"processes": team.size})


def _own(device: torch.device, team: Team) -> torch.device:
    """Of several processes on one machine each has a GPU of its own."""
    import torch

    alone = team.size == 1 or device.type != "cuda"
    return device if alone else torch.device("cuda", team.local)


def _beside(spec: str, test: Dataset, threat: Lp, plan: Plan) -> Classifier:
    """Another model for the card, which must be able to take the same measurement."""
    from robustbench_lite.data import checked_for
    from robustbench_lite.fit import check_fit
    from robustbench_lite.goal import Untargeted
    from robustbench_lite.models import load_card, load_model

    card, classifier = load_card(spec), load_model(spec)
    takes, shape = (card.channels, card.size, card.size), tuple(test.x.shape[1:])
    if takes != shape:
        raise InputError(
            f"--beside {spec} takes images of shape {takes}, the test images have {shape}; "
            "name a model of the same data"
        )
    checked_for(test, card.classes)
    check_fit(plan, threat, classifier, Untargeted(), None)
    return classifier


def _measured(outcome: Outcome, data: str) -> Measured:
    from robustbench_lite.card import Measured

    return Measured(
        data=data,
        n=outcome.n,
        seed=outcome.seed,
        attack=outcome.attack,
        clean_accuracy=outcome.clean_accuracy,
        robust_accuracy=outcome.robust_accuracy,
        robust_ci95=outcome.robust_ci95,
    )


def _probe(recipe: Recipe) -> Probe | None:
    """What looks at the held-out samples after an epoch."""
    from robustbench_lite.judge import evaluate
    from robustbench_lite.registry import load_attack
    from robustbench_lite.threat import Lp

    if not recipe.holdout:
        return None
    name = recipe.probe or "pgd"
    plan = load_attack(name, **recipe.probe_set)
    threat = Lp(recipe.norm, recipe.eps)

    def probe(classifier: Classifier, data: Dataset) -> tuple[float, float]:
        outcome = evaluate(classifier, plan, threat, data)
        return outcome.clean_accuracy, outcome.robust_accuracy

    return probe


def _numbers(module: nn.Module) -> int:
    return sum(b.numel() for b in module.buffers())
