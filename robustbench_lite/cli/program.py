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
app.command("attack", help=in_paragraphs(attack.attack))(attack.attack)
app.command("doctor", help=in_paragraphs(doctor.doctor))(doctor.doctor)
app.command("explain", help=in_paragraphs(explain.explain))(explain.explain)
app.command("certify", help=in_paragraphs(certify.certify))(certify.certify)
app.command("bench", help=in_paragraphs(bench.bench))(bench.bench)
app.command("leaderboard", help=in_paragraphs(leaderboard.leaderboard))(leaderboard.leaderboard)
app.command("compare", help=in_paragraphs(leaderboard.compare))(leaderboard.compare)
app.command("plot", help=in_paragraphs(plot.plot))(plot.plot)
app.command("merge", help=in_paragraphs(bench.merge))(bench.merge)
app.add_typer(baseline.app, name="baseline", no_args_is_help=True)
app.command("check", help=in_paragraphs(check.check))(check.check)
app.command("init", help=in_paragraphs(gate_setup.init))(gate_setup.init)
app.command("power", help=in_paragraphs(gate_setup.power))(gate_setup.power)
app.command("train", help=in_paragraphs(train.train))(train.train)
app.command("convert", help=in_paragraphs(convert.convert))(convert.convert)
app.command("export", help=in_paragraphs(export.export))(export.export)
app.command("validate", help=in_paragraphs(validate.validate))(validate.validate)
app.command("list", help=in_paragraphs(catalogue.list_names))(catalogue.list_names)
app.command("show", help=in_paragraphs(catalogue.show))(catalogue.show)
