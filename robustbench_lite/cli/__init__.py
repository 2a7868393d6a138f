"""The command `rbl`. Nothing heavy is imported before a command needs it."""

import os
import sys

from robustbench_lite.cli import interrupt

USAGE = 2


def main() -> None:
    """Run the command line; errors meant for the user become one sentence and exit code 2."""
    interrupt.watch()
    # Idle threads that spin slow down everything else on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = _run()
    interrupt.ignore()
    if "WORLD_SIZE" in os.environ:  # torchrun's: gloo's threads abort 1 interpreter's end in 20
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    from typer import Exit

    from robustbench_lite.cli.program import app
    from robustbench_lite.errors import RblError

    try:
        return app(standalone_mode=False) or 0
    except RblError as error:
        _complain(str(error))
        return error.exit_code
    except Exit as leave:
        return leave.exit_code
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "rbl"
        message = str(usage()).rstrip(". ")
        # Without any argument the help has been printed, and there is nothing to add.
        return _complain(f"{message}; see {command} --help") if message else USAGE


def _complain(message: str) -> int:
    # A library's message may have several lines; ours is one sentence.
    sys.stderr.write(f"rbl: {' '.join(message.split())}\n")
    return USAGE
