"""Files from the network by their digest, and archives unpacked without harm."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.client
import io
import lzma
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from robustbench_lite.errors import InputError

Report = Callable[[int, int], None]  # bytes so far, and in all (0 if nobody knows)

_CHUNK = 2**20
_TIMEOUT = 30.0  # seconds without an answer
_STALE = 3600.0  # seconds after which a part of a file is what a killed process left
_HOME = ("localhost", "127.0.0.1", "::1")
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DRIVE = re.compile(r"[A-Za-z]:")
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, MemoryError),
    *(zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
)
_watcher: ContextVar[Report | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(report: Report) -> Iterator[None]:
    """Have `report` called with the bytes of every file that is fetched inside."""
    token = _watcher.set(report)
    try:
        yield
    finally:
        _watcher.reset(token)


def fetched(url: str, sha256: str, folder: Path, *, most: int = 2**32) -> Path:
    """The file behind an address, in a folder; fetched once, and again if it was damaged.

    Args:
        url: https, or http on this machine; it may not lead to anything less.
        sha256: what the content must have, 64 hexadecimal digits.
        folder: where the file is kept, under the name that ends the address; made if need be.
        most: bytes that are read at most.

    Raises:
        InputError: the address cannot be used or reached, or gives another content; then no file
            is left.
    """
    name = _name_of(url)
    path = folder / name
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        if path.is_file() and _digest(path) == sha256:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder, name)
        try:
            found = _read(url, part, most)
            if found != sha256:
                raise InputError(
                    f"{url} has the sha256 {found}, not {sha256}; it is another file than it was, "
                    "or was changed on the way: do not use it"
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (HTTPError, URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{url} cannot be fetched into {folder} ({error}); check the network and the disk"
        ) from error
    return path


def extracted(archive: Path, folder: Path, *, most: int = 2**33, files: int = 200_000) -> Path:
    """What a tar or zip file holds, in a folder that is there wholly or not at all.

    Regular files and folders are taken and nothing else: a link, a device or a name that leads out
    of the folder refuses the whole archive.

    Args:
        archive: the file.
        folder: where it goes; if it exists, it is taken as the archive's content.
        most: bytes at most, unpacked.
        files: how many files and folders at most.

    Raises:
        InputError: it is no such archive, is damaged, or holds what is not taken.
    """
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        _sweep(folder.parent, folder.name)
        part.mkdir(parents=True)
        left = most
        for count, (name, stream) in enumerate(_members(archive, most)):
            if count == files:
                raise _refused(archive, f"holds more than {files} files")
            target = part.joinpath(*_parts(name, archive))
            if stream is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                while block := stream.read(_CHUNK):
                    left -= len(block)
                    if left < 0:
                        raise _refused(archive, f"is larger than {most} bytes when unpacked")
                    file.write(block)
        with suppress(FileExistsError):  # another process was faster, with the same
            part.rename(folder)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"archive {archive} cannot be unpacked into {folder} ({error}); fetch it again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


class _Careful(HTTPRedirectHandler):
    """Follows no address to one that is less safe."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """The next request."""
        schemes = (urlsplit(req.full_url).scheme, urlsplit(newurl).scheme)
        if not _safe(newurl) or schemes == ("https", "http"):
            raise InputError(f"{req.full_url} leads to {newurl}, which is not https; do not use it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HOME)


def _name_of(url: str) -> str:
    if not _safe(url):
        raise InputError(f"{url} is not https; give an address that begins with https://")
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if name in ("", ".", "..") or not name.isprintable() or "\\" in name:
        raise InputError(f"{url} does not end with the name of a file; give its whole address")
    return name


def _sweep(folder: Path, name: str) -> None:
    """Remove what killed processes left of a file."""
    for stale in folder.glob(f"{name}.*.part"):
        if time.time() - stale.stat().st_mtime > _STALE:
            if stale.is_dir():
                shutil.rmtree(stale)
            else:
                stale.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(url: str, part: Path, most: int) -> str:
    """The sha256 of what was written."""
    report = _watcher.get()
    digest, done = hashlib.sha256(), 0
    request = Request(url, headers={"User-Agent": "robustbench-lite"})
    with (
        build_opener(_Careful()).open(request, timeout=_TIMEOUT) as answer,
        part.open("wb") as file,
    ):
        whole = int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(_CHUNK):
            done += len(block)
            if max(done, whole) > most:
                raise InputError(f"{url} is larger than {most} bytes; it is not the file meant")
            digest.update(block)
            file.write(block)
            if report is not None:
                report(done, whole)
    if done < whole:
        raise InputError(f"{url} broke off after {done} of {whole} bytes; try again")
    return digest.hexdigest()


def _members(archive: Path, most: int) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each file, None for the content of a folder."""
    with archive.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        if head.startswith(b"PK"):
            yield from _zipped(archive, file, most)
        elif opener := next((o for mark, o in _PACKED.items() if head.startswith(mark)), None):
            with opener(file) as stream:
                yield from _tarred(archive, stream, most)
        elif head[257:262] == b"ustar":
            yield from _tarred(archive, file, most)
        else:
            raise _refused(archive, "is neither tar nor zip")


def _zipped(archive: Path, file: IO[bytes], most: int) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(file) as opened:
        if sum(member.file_size for member in opened.infolist()) > most:
            raise _refused(archive, f"is larger than {most} bytes when unpacked")
        for member in opened.infolist():
            kind = member.external_attr >> 28  # the Unix file type, 0 where there is none
            if kind not in (0, 0o4, 0o10):
                raise _refused(archive, f"holds {member.filename!a}, a link or a device")
            if member.is_dir():
                yield member.filename, None
            else:
                with opened.open(member) as stream:
                    yield member.filename, stream


class _Short(io.RawIOBase):
    """A stream that is only read in short pieces: a long one would be a name that fills memory."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes."""
        if not 0 <= size <= 2 * _CHUNK:
            raise ValueError("a header is too long")
        return bytes(self.inner.read(size))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        return int(self.inner.seek(offset, whence))

    def tell(self) -> int:
        """The present byte."""
        return int(self.inner.tell())


def _tarred(archive: Path, stream: Any, most: int) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(fileobj=_Short(stream), mode="r:") as opened:
        for member in opened:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _refused(archive, f"holds {member.name!a}, a link or a device")
            if member.size > most:
                raise _refused(archive, f"is larger than {most} bytes when unpacked")
            yield member.name, opened.extractfile(member)


def _parts(name: str, archive: Path) -> list[str]:
    """The folders and the file of a member's name."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or ".." in parts or "\0" in name or _DRIVE.match(name):
        raise _refused(archive, f"holds {name!a}, which leads out of its folder")
    return parts


def _refused(archive: Path, what: str) -> InputError:
    return InputError(f"archive {archive} {what}; nothing was unpacked, do not use it")
