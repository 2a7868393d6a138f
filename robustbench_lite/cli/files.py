"""Files that a command writes: found writable before the work, and written whole after it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from robustbench_lite.cli import interrupt
from robustbench_lite.errors import InputError


def check_writable(path: Path | None, option: str) -> None:
    """Find out before the work starts whether a file can be written: by writing beside it.

    Raises:
        InputError: it cannot; the message names the option.
    """
    if path is None:
        return
    reason = ""
    try:
        if path.is_dir():
            reason = "it is a folder"
        elif not path.parent.is_dir():
            reason = f"the folder {path.parent} does not exist"
        elif path.exists() and not os.access(path, os.W_OK):
            reason = "permission is denied"
        else:
            temporary(path).touch()
            temporary(path).unlink()
    except OSError as error:
        reason = _cause(error)
    if reason:
        raise InputError(f"{option} {path} cannot be written: {reason}; choose another path")


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write to temporary names, sync, rename: all of the files or none, and never half a file.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        with interrupt.before_leaving(lambda: _discard(files)):
            for path, content in files.items():
                with temporary(path).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            interrupt.ignore()
        for path in files:
            temporary(path).replace(path)
    except OSError as error:
        raise InputError(
            f"{', '.join(map(str, files))} cannot be written: {_cause(error)}; "
            "make room or choose another path"
        ) from error
    finally:
        _discard(files)


def temporary(path: Path) -> Path:
    """Where this process writes `path` before it renames it."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def _discard(files: Iterable[Path]) -> str:
    for path in files:
        temporary(path).unlink(missing_ok=True)
    return ""


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
