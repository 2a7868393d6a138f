"""The cards of the trained models."""

from prose import code, escaped, label, sections, table
from sources import comes_from_elsewhere

from robustbench_lite.card import Card
from robustbench_lite.displays.words import distance, interval, percent
from robustbench_lite.models import load_card
from robustbench_lite.registry import Kind, registered
from robustbench_lite.stats import wilson

_HEAD = ("model", "architecture", "defense", "clean %", "robust %", "threat", "parameters")


def zoo() -> str:
    """A table for each data set, and a line on each model."""
    by_data: dict[str, list[Card]] = {}
    for name in registered(Kind.MODELS):
        if not comes_from_elsewhere(name):
            card = load_card(name)
            by_data.setdefault(card.measured.data, []).append(card)
    return sections(
        part
        for data, cards in sorted(by_data.items())
        for part in (f"## {data}", table(_HEAD, map(_row, cards)), *map(_line, cards))
    )


def _row(card: Card) -> tuple[str, ...]:
    found, recipe = card.measured, card.recipe
    clean = wilson(round(found.clean_accuracy * found.n), found.n)
    before = "".join(f"+{text}" for text in recipe.behind)
    return (
        f"[{code(card.name)}](#zoo-{card.name})",
        code(recipe.arch),
        code(recipe.defense + before),
        f"{percent(found.clean_accuracy)} ({interval(*clean)})",
        f"{percent(found.robust_accuracy)} ({interval(*found.robust_ci95)})",
        distance(card.threat),
        str(card.parameters),
    )


def _line(card: Card) -> str:
    found, recipe = card.measured, card.recipe
    return sections(
        [
            label("zoo", card.name),
            f"### {card.name}",
            f"{escaped(card.summary)} {card.train_samples} samples of {code(recipe.data)}, "
            f"{recipe.epochs} epochs; images of {card.channels} x {card.size} x {card.size}, "
            f"{card.classes} classes. Measured on {found.n} samples of seed {found.seed} by "
            f"{code(found.attack)}.",
        ]
    )
