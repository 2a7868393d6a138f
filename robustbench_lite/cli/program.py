"""The commands of `rbl`, put together, in the order in which people need them."""

from collections.abc import Callable
from inspect import getdoc

import typer

from robustbench_lite.cli import (
    attack,
    baseline,
    bench,
    catalogue,
    certify,
    check,
    convert,
    doctor,
    explain,
    export,
    gate_setup,
    leaderboard,
    plot,
    train,
    validate,
)


def in_paragraphs(command: Callable[..., None]) -> str:
    """Its docstring, with each paragraph on one line for the terminal to fold."""
    return "\n\n".join(" ".join(p.split()) for p in (getdoc(command) or "").split("\n\n"))


app = typer.Typer(
    name="rbl",
    help="How robust is this image classifier, really?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "attack": attack.attack,
    "doctor": doctor.doctor,
    "explain": explain.explain,
    "certify": certify.certify,
    "bench": bench.bench,
    "leaderboard": leaderboard.leaderboard,
    "compare": leaderboard.compare,
    "plot": plot.plot,
    "merge": bench.merge,
    "check": check.check,
    "init": gate_setup.init,
    "power": gate_setup.power,
    "train": train.train,
    "convert": convert.convert,
    "export": export.export,
    "validate": validate.validate,
    "list": catalogue.list_names,
    "show": catalogue.show,
}
for _name, _command in COMMANDS.items():
    app.command(_name, help=in_paragraphs(_command))(_command)
app.add_typer(baseline.app, name="baseline", no_args_is_help=True)
