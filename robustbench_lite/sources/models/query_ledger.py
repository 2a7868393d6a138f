"""Answers that were paid for, on disk: none is lost, and none is paid for twice.

The file is an SQLite database that every call is committed to before its answers are used. Its
rollback journal, unlike a write-ahead log, works on network file systems too.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from robustbench_lite.errors import DamagedError, IncompleteError, InputError

FORMAT = 1
_PATIENCE = 3600.0  # seconds that other processes may take
_BLOCKED = 0.5  # seconds in SQLite, where Ctrl-C is not heard

Question = tuple[bytes, int]  # the digest of an image, and how many answers of it came before

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE answers (
    paid INTEGER PRIMARY KEY,
    image BLOB NOT NULL,
    number INTEGER NOT NULL,
    answer BLOB NOT NULL,
    UNIQUE (image, number)
);
"""


def usual_path(service: str) -> Path:
    """Where the answers of a service are kept if the user does not say.

    Args:
        service: what decides its answers, as a digest.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return cache / "robustbench-lite" / "remote" / f"{service}.sqlite"


def spent(path: Path) -> int:
    """How many images were answered, and paid for, over all runs with this ledger.

    Raises:
        InputError: there is no such file, or it is no ledger.
    """
    return told(path)[1]


def told(path: Path) -> tuple[str, int]:
    """Whose answers a ledger holds, and how many; raises as `spent` does."""
    if not path.is_file():
        raise InputError(f"ledger {path} does not exist; check the path")
    with opened(path) as book:
        return str(book.about("address")), book.count()


def check(path: Path, service: str, address: str) -> None:
    """Can the answers of a service be kept there?

    Raises:
        InputError: there is no such folder, the file is no ledger, or that of another service.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in no folder that exists"
        raise InputError(f"ledger {path} {what}; give a file in an existing folder")
    if not path.is_file() or not path.stat().st_size:
        return
    with opened(path) as book:
        if book.about("service") != service:
            raise InputError(
                f"ledger {path} holds what {book.about('address')} answered, not {address} with "
                "these settings; give another file"
            )


@contextmanager
def opened(path: Path) -> Iterator[Book]:
    """The answers in a file, which exists.

    Raises:
        DamagedError: the file is no ledger, or is damaged.
        IncompleteError: it cannot be read or written, or others do not give it back.
    """
    try:
        # The mode rw lets SQLite undo what a killed process left half-written.
        address = f"{path.resolve().as_uri()}?mode=rw"
        with closing(
            sqlite3.connect(address, timeout=_BLOCKED, isolation_level=None, uri=True)
        ) as connection:
            # Its journal stays, emptied: half the time of one that is removed at every commit.
            connection.execute("PRAGMA journal_mode = PERSIST")
            connection.execute("PRAGMA synchronous = FULL")
            yield Book(connection)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise _no_ledger(path, error) from error
        raise IncompleteError(
            f"ledger {path} cannot be used ({error}); see to its disk and run the same command "
            "again: what was answered is kept"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _no_ledger(path, error) from error


def _no_ledger(path: Path, error: sqlite3.Error) -> DamagedError:
    return DamagedError(
        f"{path} is no ledger of answers ({error}); give another file, or move it away"
    )


def begun(path: Path, service: str, address: str) -> None:
    """Make the file if there is none.

    Raises:
        IncompleteError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise IncompleteError(
            f"ledger {path} cannot be written ({error.strerror}); give another file: "
            "nothing was asked"
        ) from error
    with opened(path) as book, book.turn():
        book.begin(service, address)


class Book:
    """The open ledger."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else asks inside, and what is written counts when it ends, or not at all.

        The operating system ends the turn of a process that dies.
        """
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._run("COMMIT")

    def begin(self, service: str, address: str) -> None:
        """Write down whose answers these are, if nobody has."""
        if self._run("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
            return
        for statement in filter(str.strip, _SCHEMA.split(";")):
            self._run(statement)
        rows = {"format": FORMAT, "service": service, "address": address, "called": 0.0}
        for row in rows.items():
            self._run("INSERT INTO about VALUES (?, ?)", row)

    def about(self, name: str) -> str | float:
        """What is known of the whole ledger: its format, service, address, the last call's time."""
        found = self._run("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise sqlite3.DatabaseError(f"it does not tell its {name}")
        value: str | float = found[0]
        return value

    def known(self, questions: Iterable[Question]) -> dict[Question, bytes]:
        """The answers that are there."""
        ask = "SELECT answer FROM answers WHERE image = ? AND number = ?"
        rows = ((question, self._run(ask, question).fetchone()) for question in questions)
        return {question: row[0] for question, row in rows if row is not None}

    def any(self) -> bytes | None:
        """An answer, if there is one."""
        row = self._run("SELECT answer FROM answers LIMIT 1").fetchone()
        return None if row is None else row[0]

    def write(self, answers: Mapping[Question, bytes], called: float) -> None:
        """Add what a call gave that was made at the time `called` (seconds since 1970)."""
        for (image, number), answer in answers.items():
            row = (image, number, answer)
            self._run("INSERT INTO answers (image, number, answer) VALUES (?, ?, ?)", row)
        self._run("UPDATE about SET value = ? WHERE name = 'called'", (called,))

    def count(self) -> int:
        """How many answers there are."""
        return int(self._run("SELECT count(*) FROM answers").fetchone()[0])

    def last(self) -> int:
        """The same at once: answers are numbered from 1, and none is ever removed."""
        return int(self._run("SELECT coalesce(max(paid), 0) FROM answers").fetchone()[0])

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Wait here, where Ctrl-C is heard, for as long as others are at it."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._connection.execute(statement, values)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > end:
                    raise
