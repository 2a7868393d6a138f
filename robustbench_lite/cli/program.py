"""The commands of `rbl`, put together."""

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

app = typer.Typer(
    name="rbl",
    help="How robust is this image classifier, really?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("attack")(attack.attack)
app.command("convert")(convert.convert)
app.command("doctor")(doctor.doctor)
app.command("certify")(certify.certify)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("compare")(leaderboard.compare)
app.add_typer(baseline.app, name="baseline", no_args_is_help=True)
app.command("check")(check.check)
app.command("init")(gate_setup.init)
app.command("power")(gate_setup.power)
app.command("plot")(plot.plot)
app.command("merge")(bench.merge)
app.command("train")(train.train)
app.command("validate")(validate.validate)
app.command("list")(catalogue.list_names)
app.command("show")(catalogue.show)
