"""The command `rbl`. Nothing heavy is imported before a command needs it."""

import os
import sys

import typer

from robustbench_lite.cli import attack, catalogue, leaderboard, train
from robustbench_lite.errors import RblError

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="rbl",
    help="How robust is this image classifier, really?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("attack")(attack.attack)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("train")(train.train)
app.command("list")(catalogue.list_names)
app.command("show")(catalogue.show)


def main() -> None:
    """Run the command line; errors meant for the user become one sentence and exit code 2."""
    # Idle threads that spin slow down everything else on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except RblError as error:
        code = _complain(str(error))
    except typer.Exit as leave:
        code = leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\ninterrupted; nothing was written\n")
        code = INTERRUPTED
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        code = _complain(usage())
    sys.exit(code or 0)


def _complain(message: str) -> int:
    sys.stderr.write(f"rbl: {message}\n")
    return USAGE
