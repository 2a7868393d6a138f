"""`rbl train`: a model by a recipe, measured, with its card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_lite.cli import files, interrupt, options, threats
from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from robustbench_lite.attack import Plan
    from robustbench_lite.card import Recipe
    from robustbench_lite.data import Dataset
    from robustbench_lite.threat import Lp


_LEAK = 100  # a hundredth: natural duplicates are fewer


def train(
    out: Annotated[
        Path, typer.Option("--out", help="Weights to write, .safetensors; the card goes beside it.")
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", help="A card or recipe (TOML) to repeat; options below change it."
        ),
    ] = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="Architecture; rbl list architectures.")
    ] = None,
    arch_set: Annotated[
        list[str] | None,
        typer.Option("--arch-set", help="A setting of the architecture, as width=16."),
    ] = None,
    defense: Annotated[
        str | None, typer.Option("--defense", help="Defense; rbl list defenses.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the defense, as steps=7.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="What to learn from.")] = None,
    test_data: Annotated[
        str | None, typer.Option("--test-data", help="What to measure on.", show_default="--data")
    ] = None,
    card_data: Annotated[
        str | None,
        typer.Option(
            "--card-data",
            help="The same data by a name that others can load.",
            show_default="--test-data",
        ),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option("--exclude", help="Data whose images must not be learned from.")
    ] = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    test_eps: Annotated[
        str | None, typer.Option("--test-eps", help="eps of the card.", show_default="--eps")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Largest learning rate.")] = None,
    augment: Annotated[
        str | None, typer.Option("--augment", help="none, crop or crop-flip.")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Share of training in which eps rises from 0.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Decay of the averaged weights.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="L2 penalty on filters and matrices.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option("--mean", help="Channel means to normalise with, as 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Channel deviations, as 0.2,0.2,0.2.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="float32 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            help="Attack that measures the card's robustness.",
            show_default="pgd; square for a model without gradients",
        ),
    ] = None,
    check_set: Annotated[
        list[str] | None, typer.Option("--check-set", help="A setting of that attack.")
    ] = None,
    n: options.Samples = 1000,
    summary: Annotated[str, typer.Option("--summary", help="One sentence for the card.")] = "",
) -> None:
    """Train a model, measure it, and write weights and card.

    Killed in the middle, the same command goes on from its checkpoint. The same recipe and data
    give the same weights.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors; rename it")
    for path in (out, out.with_suffix(".toml"), out.with_suffix(".checkpoint")):
        files.check_writable(path, "--out")
    options.positive(n, "--n")
    chosen = _recipe(
        recipe,
        {
            "arch": arch,
            "arch_set": options.scalars(arch_set, "--arch-set"),
            "defense": defense,
            "defense_set": options.scalars(values, "--set"),
            "data": data,
            "exclude": exclude,
            "norm": norm,
            "eps": None if eps is None else options.number(eps, "--eps"),
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "augment": augment,
            "warmup": warmup,
            "ema": ema,
            "weight_decay": weight_decay,
            "mean": None if mean is None else options.numbers(mean, "--mean"),
            "std": None if std is None else options.numbers(std, "--std"),
            "precision": precision,
            "seed": seed,
        },
    )
    given = options.settings(check_set, "--check-set")
    measured_eps = chosen.eps if test_eps is None else options.number(test_eps, "--test-eps")
    if measured_eps == float("inf"):
        raise InputError("--test-eps inf cannot stand in a card; give a number such as 8/255")

    from robustbench_lite.registry import load_data
    from robustbench_lite.threat import Lp

    threat = Lp(chosen.norm, measured_eps)
    test = load_data(test_data or chosen.data)
    check = check or _usual_check(chosen, test)
    plan = options.plan_of(check, given)
    threats.check_supported({check: plan}, threat)
    checkpoint = out.with_suffix(".checkpoint")
    with interrupt.before_leaving(lambda: _remains(checkpoint)):
        named = card_data or test_data or chosen.data
        _train(chosen, out, test, named, threat, (check, plan), n, summary)


def _usual_check(recipe: Recipe, test: Dataset) -> str:
    from robustbench_lite.registry import build, classifier_of
    from robustbench_lite.threat import Access

    untrained = build(recipe, 2, test.x.shape[1], test.x.shape[2])
    gives = classifier_of(untrained, recipe, recipe.arch).access
    return "pgd" if gives >= Access.GRADIENTS else "square"


def _remains(checkpoint: Path) -> str:
    files.temporary(checkpoint).unlink(missing_ok=True)
    kept = f"{checkpoint} is kept, the same command goes on from it"
    return kept if checkpoint.exists() else ""


def _recipe(path: Path | None, changes: dict[str, Any]) -> Recipe:
    import tomllib

    from pydantic import ValidationError

    from robustbench_lite.card import Recipe
    from robustbench_lite.settings import first_problem

    start: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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


def _train(
    recipe: Recipe,
    out: Path,
    test: Dataset,
    test_spec: str,
    threat: Lp,
    check: tuple[str, Plan],
    n: int,
    summary: str,
) -> None:
    from safetensors.torch import save

    from robustbench_lite import registry
    from robustbench_lite.card import Card, Measured, card_text
    from robustbench_lite.cli import screen
    from robustbench_lite.data import Split
    from robustbench_lite.defense import Training
    from robustbench_lite.judge import evaluate
    from robustbench_lite.train import ids_digest, train

    defense = registry.load_defense(recipe.defense, **recipe.defense_set)
    if not isinstance(defense, Training):
        raise InputError(
            f"defense {recipe.defense!r} is not trained in; "
            f"write it behind a model, as mnist-cnn+{recipe.defense}"
        )
    learned = registry.load_data(recipe.data, Split.TRAIN)
    if recipe.exclude:
        learned = learned.without(registry.load_data(recipe.exclude))
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
    with screen.training(out.stem) as report:
        module, minutes = train(
            recipe,
            lambda: registry.build(recipe, classes, channels, size),
            defense,
            learned,
            checkpoint,
            report,
        )
    weights = save({k: v.contiguous() for k, v in module.state_dict().items()})
    classifier = registry.classifier_of(module, recipe, out.stem)
    sample = test.sample(n)
    name, plan = check
    outcome = evaluate(classifier, plan, threat, sample)
    card = Card(
        name=out.stem,
        summary=summary,
        classes=classes,
        channels=channels,
        size=size,
        parameters=sum(p.numel() for p in module.parameters()) or _numbers(module),
        test_data=test_spec,
        norm=recipe.norm,
        eps=threat.eps,
        train_samples=len(learned),
        train_ids_sha256=ids_digest(learned),
        train_minutes=round(minutes, 2),
        sha256=hashlib.sha256(weights).hexdigest(),
        recipe=recipe,
        measured=Measured(
            data=sample.name,
            n=outcome.n,
            seed=outcome.seed,
            attack=outcome.attack,
            clean_accuracy=outcome.clean_accuracy,
            robust_accuracy=outcome.robust_accuracy,
            robust_ci95=outcome.robust_ci95,
        ),
    )
    files.write_whole({out: weights, out.with_suffix(".toml"): card_text(card).encode()})
    checkpoint.unlink(missing_ok=True)  # what is fitted at once has none
    screen.show_table(screen.attack_title(outcome), screen.attack_table([(name, outcome)]))
    screen.show_doubts([outcome])


def _numbers(module: nn.Module) -> int:
    return sum(b.numel() for b in module.buffers())
