"""Ctrl-C: leave at once, with one line and nothing half-written.

No exception is raised: one that arrives while torch is being imported ends in a C++ abort.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 130
_last_acts: list[Callable[[], str]] = []


def watch() -> None:
    """From now on, Ctrl-C ends the process with exit code 130."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, _leave)


def ignore() -> None:
    """From now on, Ctrl-C comes too late: the results are there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def before_leaving(act: Callable[[], str]) -> Iterator[None]:
    """Have `act` called by a Ctrl-C inside; it cleans up and says what remains, or nothing."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def _leave(number: int, frame: FrameType | None) -> None:
    remains = [text for act in reversed(_last_acts) if (text := act())]
    line = f"rbl: interrupted; {' '.join(remains) or 'nothing was written'}\n"
    os.write(2, line.encode(errors="replace"))  # sys.stderr may be in the middle of a write
    os._exit(CODE)
