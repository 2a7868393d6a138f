"""`rbl train`: a model by a recipe, measured, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_lite.cli import files, interrupt, lesson, options, threats
from robustbench_lite.errors import InputError


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
    behind: Annotated[
        list[str] | None,
        typer.Option("--behind", help="Defense that stays before the net, as thermometer."),
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
    per_class: Annotated[
        int | None, typer.Option("--per-class", help="Labels of each class; 0: all there are.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", help="A trained model to begin with, but for its last layer."),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option("--freeze", help="backbone: only the last layer learns; or none.")
    ] = None,
    norm: options.NormName = None,
    eps: options.Eps = None,
    test_eps: Annotated[
        str | None, typer.Option("--test-eps", help="eps of the card.", show_default="--eps")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="sgd or adamw.")] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="one-cycle, cosine, steps or constant.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Largest learning rate.")] = None,
    augment: Annotated[
        str | None, typer.Option("--augment", help="none, crop or crop-flip.")
    ] = None,
    cutout: Annotated[
        int | None, typer.Option("--cutout", help="Side of a square that is blotted out.")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Share of training in which eps rises from 0.")
    ] = None,
    average: Annotated[
        str | None, typer.Option("--average", help="ema, or swa over the ends of epochs.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Decay of the averaged weights.")
    ] = None,
    holdout: Annotated[
        int | None,
        typer.Option(
            "--holdout",
            help="Training samples to choose the best epoch by.",
            show_default="0; fast-at: 500",
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option("--probe", help="Attack on the held-out samples.", show_default="pgd"),
    ] = None,
    probe_set: Annotated[
        list[str] | None, typer.Option("--probe-set", help="A setting of that attack.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", help="Stop after so many epochs without a gain; 0: never."),
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
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help="Another model for the card, measured in the same way."),
    ] = None,
    n: options.Samples = 1000,
    device: options.Device = "auto",
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", help="Folder for TensorBoard's curves of the run."),
    ] = None,
    summary: Annotated[str, typer.Option("--summary", help="One sentence for the card.")] = "",
) -> None:
    """Train a model, measure it, and write weights and card.

    Killed in the middle, the same command goes on from its checkpoint. The same recipe and data
    give the same weights. On several GPUs: torchrun --nproc-per-node 4 --no-python -- rbl train ...
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors; rename it")
    for path in (out, out.with_suffix(".toml"), out.with_suffix(".checkpoint")):
        files.check_writable(path, "--out")
    options.positive(n, "--n")
    chosen = lesson.recipe_of(
        recipe,
        {
            "arch": arch,
            "arch_set": options.scalars(arch_set, "--arch-set"),
            "defense": defense,
            "defense_set": options.scalars(values, "--set"),
            "behind": behind,
            "data": data,
            "exclude": exclude,
            "per_class": per_class,
            "init_from": init_from,
            "freeze": freeze,
            "norm": norm,
            "eps": None if eps is None else options.number(eps, "--eps"),
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "schedule": schedule,
            "lr": lr,
            "augment": augment,
            "cutout": cutout,
            "warmup": warmup,
            "average": average,
            "ema": ema,
            "holdout": holdout,
            "probe": probe,
            "probe_set": options.scalars(probe_set, "--probe-set"),
            "patience": patience,
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
    check = check or lesson.usual_check(chosen, test)
    plan = options.plan_of(check, given)
    threats.check_supported({check: plan}, threat)
    checkpoint = out.with_suffix(".checkpoint")
    where = options.device_of(device)
    with interrupt.before_leaving(lambda: _remains(checkpoint)):
        named = card_data or test_data or chosen.data
        exam = lesson.Exam(test, named, threat, check, plan, n, tuple(beside or ()))
        lesson.learn(chosen, out, exam, summary, where, tensorboard)


def _remains(checkpoint: Path) -> str:
    files.temporary(checkpoint).unlink(missing_ok=True)
    kept = f"{checkpoint} is kept, the same command goes on from it"
    return kept if checkpoint.exists() else ""
