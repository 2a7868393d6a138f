"""Files of `torch.save` and other pickles: read without running what is in them, or knowingly."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch

from robustbench_lite.errors import InputError

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_SAFE_SINCE = "2.10"  # before, a file could deceive torch.load with weights_only
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch.save before torch 1.6
_USUAL = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_\w+|torch(\.storage)? \w*Storage"
)
_OPCODES = 1_000_000  # that are looked at; weights have some thousands
_SHOWN = 5
_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_pickled(path: Path) -> object:
    """What `torch.save` wrote, if that is tensors, numbers, texts, lists and dicts only.

    Raises:
        InputError: it is anything else, which could run code, or it is damaged.
    """
    if torch.__version__ < _SAFE_SINCE:
        raise InputError(
            f"weights file {path} is a pickle, and torch {torch.__version__} cannot read one "
            f"safely; install torch {_SAFE_SINCE} or newer, or give a .safetensors file"
        )
    try:
        form = _form_of(path)
        if form == "empty":
            raise InputError(f"weights file {path} is empty; copy it again")
        if form in ("pickle", "tar"):
            raise InputError(refusal(path))
        if form == "zip":
            _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=form == "zip")
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(refusal(path)) from None
    except Exception as error:  # in a damaged file a reader of pickles meets nearly anything
        raise InputError(
            f"weights file {path} cannot be read ({_cause(error)}); "
            "copy it again, or give a .safetensors file"
        ) from error


def run_pickle(content: bytes) -> object:
    """Whatever a pickle makes, by all the code that it asks for: only for files that are trusted.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if _form(content[:512]) == "pickle":
            return pickle.loads(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    except Exception as error:  # the pickle's own code can raise anything
        raise InputError(
            f"the pickle cannot be opened ({_cause(error)}); "
            "install the packages that it was made with, or save its state_dict() there"
        ) from error


def refusal(path: Path) -> str:
    """Why a pickle is not opened, and what to do."""
    names = imports_of(path)
    told = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = f"it would import {told}{more}" if names else "it holds more than tensors, or is damaged"
    return (
        f"weights file {path} is a pickle that can run code when it is opened: {what}; if you "
        f"trust its author, run rbl convert {shlex.quote(str(path))} --unsafe-pickle"
    )


def imports_of(path: Path) -> list[str]:
    """What a pickle would import when it is opened, as `os.system`, torch's own at the end.

    What tensors need is left out. Nothing is run, so names that a pickle makes up stay hidden.
    """
    found: set[str] = set()
    with suppress(*_DAMAGE):  # no import can be told behind the last whole instruction
        for stream in _streams_of(path):
            found.update(_imports_in(stream))
    names = {name for name in found if not _USUAL.fullmatch(name)}
    told = {printable(name.replace(" ", ".")) for name in names}
    return sorted(told, key=lambda name: (name.startswith("torch."), name))


def printable(name: str) -> str:
    """A name out of a file as a message may show it: short, and without control characters."""
    plain = name if name.isprintable() else ascii(name)[1:-1]
    return plain if len(plain) <= 80 else f"{plain[:77]}..."


def _cause(error: Exception) -> str:
    first = str(error).strip().splitlines()[:1]
    return printable(": ".join([type(error).__name__, *first]))


def _form_of(path: Path) -> str:
    with path.open("rb") as file:
        return _form(file.read(512))


def _form(head: bytes) -> str:
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(_MAGIC):
        return "legacy"
    return "tar" if head[257:262] == b"ustar" else "pickle"


def _check_archive(path: Path) -> None:
    """Raise InputError for a zip file that `torch.save` did not write."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename.rpartition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise InputError(
            f"weights file {path} is a TorchScript program; give it as --model torchscript:{path}"
        )
    if "data.pkl" not in names:
        raise InputError(
            f"weights file {path} is a zip file, but not one of torch.save; "
            "save the weights with torch.save(model.state_dict(), FILE)"
        )
    # A compressed member can be a thousand times as large as the file, and fill the memory.
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise InputError(
            f"weights file {path} is compressed, which torch.save never does; save it again"
        )


def _streams_of(path: Path) -> Iterator[io.BytesIO]:
    """Each pickle in a file."""
    if _form_of(path) == "zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".pkl") and member.file_size < path.stat().st_size:
                    yield io.BytesIO(archive.read(member))
        return
    with path.open("rb") as file:
        whole = io.BytesIO(file.read())
    for _ in range(5 if whole.getvalue().startswith(_MAGIC) else 1):
        yield whole


def _imports_in(stream: BinaryIO) -> Iterator[str]:
    """`MODULE NAME` of each instruction that imports."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == _OPCODES:
            return
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name == "STACK_GLOBAL":
            yield " ".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif "PUT" in opcode.name and isinstance(argument, int):
            memo[argument] = texts[-1] if texts else ""
        elif "GET" in opcode.name and isinstance(argument, int):
            texts.append(memo.get(argument, ""))
