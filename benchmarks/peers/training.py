"""What an epoch of adversarial training costs beside the passes that it cannot do without.

Each batch must go forward and back to the image once a step of the search, and once forward and
back to the weights. The images are random: the time does not depend on what they show.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sheet
import torch
from rounds import Run, measure, ratio
from torch import Tensor
from torch.nn import functional

from robustbench_lite.card import Recipe
from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.data import Dataset
from robustbench_lite.models import untrained
from robustbench_lite.registry import load_defense
from robustbench_lite.train import train

EPOCH, BARE = "rbl's epoch", "its passes alone"
_CLASSES, _CHANNELS, _SIZE = 10, 3, 32


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        arch="resnet",
        defense="pgd-at",
        defense_set={"steps": options.steps, "step_size": 0.5},
        data="-",
        eps=8 / 255,
        augment="crop-flip",
        epochs=1,
        precision=options.precision,
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(options.n, _CHANNELS, _SIZE, _SIZE, generator=generator)
    data = Dataset(x, torch.randint(_CLASSES, (options.n,), generator=generator))
    runs: dict[str, Run] = {
        EPOCH: lambda seed: _epoch(recipe, data),
        BARE: lambda seed: _bare(recipe, data, options.steps),
    }
    measure(runs, 1)
    laps = measure(runs, options.repeats)
    cost = ratio(laps, EPOCH, [BARE])
    rows = [
        [name, *sheet.times(lap), sheet.cell(ratio(laps, name, [BARE]))]
        for name, lap in laps.items()
    ]
    print(
        f"one epoch of pgd-at with {options.steps} steps, resnet, {options.n} images of 32 x 32, "
        f"batch {recipe.batch_size}, {recipe.precision}, {options.repeats} rounds"
    )
    sheet.print_table("", ["", "s, median", "s, spread", "/ passes"], rows)
    sheet.print_footer([])
    sheet.store(options.json, options, laps, {"ratio": cost})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2560, help="images an epoch")
    parser.add_argument("--steps", type=int, default=3, help="steps of the search")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the raw figures")
    return parser.parse_args()


def _model(recipe: Recipe) -> Classifier:
    torch.manual_seed(0)
    return untrained(recipe, _CLASSES, _CHANNELS, _SIZE, "resnet")


def _epoch(recipe: Recipe, data: Dataset) -> None:
    defense = load_defense(recipe.defense, **recipe.defense_set)
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe,
            lambda: _model(recipe),
            defense,  # type: ignore[arg-type]  # pgd-at is trained in
            data,
            Path(folder) / "checkpoint",
            lambda progress: None,
        )


def _bare(recipe: Recipe, data: Dataset, steps: int) -> None:
    model = _model(recipe).to(memory_format=torch.channels_last)
    for x, y in _batches(recipe, data):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            with borrowed(model):
                for _ in range(steps):
                    leaf = x.clone().requires_grad_(True)
                    torch.autograd.grad(functional.cross_entropy(model(leaf), y), leaf)
            model.train()
            loss = functional.cross_entropy(model(x), y)
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)


def _batches(recipe: Recipe, data: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(data), recipe.batch_size):
        part = slice(first, first + recipe.batch_size)
        yield data.x[part].contiguous(memory_format=torch.channels_last), data.y[part]


if __name__ == "__main__":
    main()
