"""A folder that remembers: files named by what decides their content, written whole or not at all.

    units/4f/4f…e1.jsonl     what one attack did to one model on one slice of the samples
    entries/9a…0c.json       what one model's row of a leaderboard is made of: the units' keys

Nothing is ever changed, so that two writers cannot conflict and folders are merged by copying.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from robustbench_lite.errors import DamagedError, IncompleteError, InputError

_BYTES = 16
_SUFFIXES = {"units": ".jsonl", "entries": ".json"}
_LOCK = "lock"


class Store:
    """Files of units and entries in one folder.

    Args:
        folder: where; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def path(self, kind: str, key: str) -> Path:
        """Where the file of a key is, or would be."""
        inner = Path(key[:2]) / key if kind == "units" else Path(key)
        return self.folder / kind / inner.with_name(inner.name + _SUFFIXES[kind])

    def has(self, kind: str, key: str) -> bool:
        """Is there a whole file of that key?"""
        try:
            self.read(kind, key)
        except (FileNotFoundError, DamagedError):
            return False
        return True

    def read(self, kind: str, key: str) -> bytes:
        """What was written under a key.

        Raises:
            FileNotFoundError: nothing was.
            DamagedError: the file is not what was written.
        """
        path = self.path(kind, key)
        try:
            return _opened(path.read_bytes(), path)
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:  # a folder on the way is a file: nothing was written
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise InputError(
                f"{path} cannot be read: {_cause(error)}; check the disk and the permissions"
            ) from error

    def write(self, kind: str, key: str, content: bytes) -> None:
        """Put lines on record under a key, with a line that seals them.

        Raises:
            IncompleteError: they cannot be written; nothing half-written is left.
        """
        path = self.path(kind, key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self.claim(key, wait=True)  # or another process takes it for what a dead one has left
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    file.write(sealed(content, key))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise IncompleteError(
                f"{path} cannot be written: {_cause(error)}; what is stored is sound: make room or "
                "choose another folder, and start again to go on"
            ) from error
        finally:
            self.release(key)

    def keys(self, kind: str) -> Iterator[str]:
        """The keys of all files of a kind, sorted."""
        found = (self.folder / kind).rglob(f"*{_SUFFIXES[kind]}")
        return iter(sorted(path.name.removesuffix(_SUFFIXES[kind]) for path in found))

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Have this process, and no other on the folder, work on a key until it is released.

        A process that dies releases what it had.
        """
        how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.lockf(self._lock_file(), how, 1, _offset(key))
        except BlockingIOError:
            return False
        except PermissionError:  # as some systems call a lock that is held
            return False
        return True

    def release(self, key: str) -> None:
        """Let others work on a key."""
        fcntl.lockf(self._lock_file(), fcntl.LOCK_UN, 1, _offset(key))

    def clean(self) -> None:
        """Remove what dead processes have left half-written; those at work hold a claim."""
        for kind in _SUFFIXES:
            for path in (self.folder / kind).rglob("*.tmp"):
                key = path.name.partition(".")[0]
                if self.claim(key):
                    path.unlink(missing_ok=True)
                    self.release(key)

    def _lock_file(self) -> int:
        if self._lock is None:
            path = self.folder / _LOCK
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise IncompleteError(
                    f"{path} cannot be written: {_cause(error)}; make room or choose another folder"
                ) from error
        return self._lock


def merge(sources: list[Store], target: Store) -> dict[str, int]:
    """Copy what `target` lacks, whatever the order; how many files of each kind it has then.

    Raises:
        InputError: a source is no store or holds a damaged file, or two files of one key differ
            in more than the clock.
        IncompleteError: the target cannot be written.
    """
    for source in sources:
        if not any((source.folder / kind).is_dir() for kind in _SUFFIXES):
            raise InputError(f"{source.folder} holds no results; give folders that rbl bench wrote")
    plan: dict[tuple[str, str], tuple[str, str, Path]] = {}
    for store in [*sources, target]:
        for kind in _SUFFIXES:
            for key in store.keys(kind):
                path = store.path(kind, key)
                content = store.read(kind, key)
                found = (_seal(_lasting(content)), _seal(content), path)
                known = plan.setdefault((kind, key), found)
                if known[0] != found[0]:
                    raise InputError(
                        f"{known[2]} and {path} should be the same and are not; one of the "
                        "machines computes otherwise: remove the file that you do not trust"
                    )
                # Which of two clocks is kept must not depend on the order of the folders.
                plan[kind, key] = min(known, found)
    for (kind, key), (_, _, path) in plan.items():
        if path != target.path(kind, key):
            target.write(kind, key, _opened(path.read_bytes(), path))
    return {kind: sum(1 for k, _ in plan if k == kind) for kind in _SUFFIXES}


def sealed(content: bytes, key: str) -> bytes:
    """Lines with one more, which tells whether they are whole and those of the key."""
    return content + b'{"seal": "' + _seal(key.encode() + content).encode() + b'"}\n'


def _opened(content: bytes, path: Path) -> bytes:
    body = _lasting(content)
    if not content.endswith(b"\n") or sealed(body, path.stem) != content:
        raise DamagedError(
            f"{path} is damaged: it is not what was written; remove it and start rbl bench again"
        )
    return body


def _seal(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_BYTES).hexdigest()


def _lasting(content: bytes) -> bytes:
    """What does not depend on the clock: all but the last line."""
    return content[: content.rstrip(b"\n").rfind(b"\n") + 1]


def _offset(key: str) -> int:
    return int(key[:15], 16)


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
