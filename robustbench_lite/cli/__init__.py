"""The command `rbl`. Nothing heavy is imported before a command needs it."""

import os
import signal
import sys
from types import FrameType

from robustbench_lite.errors import RblError

USAGE, INTERRUPTED = 2, 130


class Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would turn into an exit without a word.

    The text says what remains of the work.
    """

    def __str__(self) -> str:
        return super().__str__() or "nothing was written"


def main() -> None:
    """Run the command line; errors meant for the user become one sentence and exit code 2."""
    # Idle threads that spin slow down everything else on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable
    try:
        code = _run()
    except Interrupted as stop:
        code = _complain(f"interrupted; {stop}", INTERRUPTED)
    sys.exit(code)


def _run() -> int:
    from typer import Exit

    from robustbench_lite.cli.program import app

    try:
        return app(standalone_mode=False) or 0
    except RblError as error:
        return _complain(str(error))
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _unraisable(failure: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C within a callback of an import, where Python could only report it and go on."""
    if not isinstance(failure.exc_value, Interrupted):
        sys.__unraisablehook__(failure)
        return
    _complain(f"interrupted; {failure.exc_value}")
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _complain(message: str, code: int = USAGE) -> int:
    # A library's message may have several lines; ours is one sentence.
    sys.stderr.write(f"rbl: {' '.join(message.split())}\n")
    return code
