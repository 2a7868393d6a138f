"""What is called as a whole, whatever it is made of: a program of another library, by its file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lite.errors import InputError, unknown

_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


class Held:
    """Keeps a program out of sight: its digest is that of its file, and it is never copied."""

    __slots__ = ("program",)

    def __init__(self, program: Any) -> None:
        self.program = program

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return self


class Program(nn.Module):
    """Asks a program about images, in batches of the size that it was made for.

    It has no mode and no weights of its own: frozen programs cannot be switched or trained.

    Args:
        program: a module; it is moved with this one.
        ask: images (N, C, H, W) to logits (N, K); the program itself if None.
        content: digest of all that decides the answers.
        batch: images a call, exactly; 0 for any number. Missing ones are copies of the last.
        what: settings that decide the answers, too.
    """

    def __init__(
        self,
        program: Any,
        content: str,
        *,
        ask: Callable[[Tensor], object] | None = None,
        batch: int = 0,
        what: str = "",
    ) -> None:
        super().__init__()
        self._held = Held((program, ask or program))
        self.content, self.batch, self.what = content, batch, what
        if isinstance(program, nn.Module):
            for p in program.parameters():
                p.requires_grad_(False)

    def forward(self, x: Tensor) -> object:
        """(N, K) logits of images (N, C, H, W)."""
        count, ask = len(x), self._held.program[1]
        if not self.batch or count == self.batch:
            return ask(x)
        rows = torch.arange(-(-count // self.batch) * self.batch, device=x.device)
        parts = torch.split(x[rows.clamp(max=count - 1)], self.batch)
        answers = [ask(part) for part in parts]
        if not all(isinstance(answer, Tensor) for answer in answers):
            return answers[0]
        return torch.cat(answers)[:count]

    def train(self, mode: bool = True) -> Program:
        """Note the mode; the program stays in that of its file."""
        self.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Program:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own hook
        program = self._held.program[0]
        if isinstance(program, nn.Module):
            program._apply(fn)  # type: ignore[no-untyped-call]  # torch's own hook
        return self

    @property
    def size(self) -> int:
        """Numbers in the program's weights."""
        program = self._held.program[0]
        if not isinstance(program, nn.Module):
            return 0
        return sum(p.numel() for p in program.parameters())


def digest_of(parts: Iterable[tuple[str, bytes]]) -> str:
    """32 hexadecimal digits of named contents."""
    seen = hashlib.blake2b(digest_size=16)
    for name, content in sorted(parts):
        seen.update(f"{name}\0{len(content)}\0".encode())
        seen.update(content)
    return seen.hexdigest()


def file_of(spec: str, argument: str, remedy: str) -> Path:
    """The file of a spec, which is there and is no plain pickle.

    Args:
        spec: for messages.
        argument: the path.
        remedy: how such a file is made.

    Raises:
        InputError: no path, no file, nothing in it, or a pickle.
    """
    name = spec.partition(":")[0]
    if not argument:
        raise InputError(f"model {name!r} needs a file; write {name}:FILE")
    path = Path(argument)
    if not path.is_file():
        raise InputError(f"model file {path} does not exist; check the path behind {name}:")
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"model file {path} cannot be read ({error}); check its rights") from error
    if not start:
        raise InputError(f"model file {path} is empty; {remedy}")
    if start in _PICKLES:
        raise InputError(
            f"model file {path} is a pickle, which can run code when it is read; {remedy}"
        )
    return path


def chosen(spec: str, key: str, value: str, known: Iterable[str]) -> str:
    """A setting's value, which has to be one of the known ones.

    Raises:
        InputError: it is not.
    """
    names = tuple(known)
    if value not in names:
        raise unknown(f"value of {key} in model {spec!r}", value, names)
    return value


def cause_of(error: Exception) -> str:
    """The first line that an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
