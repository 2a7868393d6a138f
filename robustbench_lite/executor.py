"""Who computes units: this process, several processes of this machine, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Protocol, Self

import torch

from robustbench_lite.errors import ModelFailedError
from robustbench_lite.unit import Unit, compute


class Executor(Protocol):
    """Takes units and gives back what was found, in whatever order."""

    @property
    def slots(self) -> int:
        """How many units it takes at a time."""

    def submit(self, unit: Unit) -> None:
        """Begin with a unit."""

    def next(self) -> tuple[Unit, bytes | Exception]:
        """Wait for a unit to be done or to have failed."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(self, *error: object) -> None:
        """Stop."""


class InProcess:
    """One unit at a time, here."""

    slots = 1

    def __init__(self) -> None:
        self._waiting: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        """Keep a unit for `next`."""
        self._waiting.append(unit)

    def next(self) -> tuple[Unit, bytes | Exception]:
        """Compute it."""
        unit = self._waiting.popleft()
        return unit, attempted(unit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is to be stopped."""


class Processes:
    """Several processes of this machine; where it has GPUs, each has one to itself.

    Args:
        workers: how many processes, 1 or more.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[bytes | Exception], tuple[Unit, int, ProcessPoolExecutor]] = {}
        self._gpus = torch.cuda.device_count()

    def submit(self, unit: Unit) -> None:
        """Hand it to a process that has nothing to do."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.slots,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(), self._threads),
            )
        taken = {place for _, place, _ in self._running.values()}
        place = next(p for p in range(self.slots) if p not in taken)
        on_gpu = unit.device.startswith("cuda") and self._gpus
        placed = replace(unit, device=f"cuda:{place % self._gpus}") if on_gpu else unit
        try:
            future = self._pool.submit(attempted, placed)
        except BrokenProcessPool as error:  # noticed before anybody waited for a result
            future = Future()
            future.set_exception(error)
        self._running[future] = (unit, place, self._pool)

    def next(self) -> tuple[Unit, bytes | Exception]:
        """Wait for one; a process that died is replaced, and what it did has failed."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = done.pop()
        unit, _, pool = self._running.pop(future)
        try:
            return unit, future.result()
        except BrokenProcessPool as error:
            if pool is self._pool:  # all that ran in it are told, one after the other
                self._stop()
            return unit, RuntimeError(f"the process that computed it died ({error})")

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()


def attempted(unit: Unit) -> bytes | Exception:
    """What a unit's file holds, or what went wrong."""
    try:
        return compute(unit)
    except Exception as error:  # whatever a model of somebody else's raises
        # Of a device, perhaps: worth another try.
        if isinstance(error, ModelFailedError) or isinstance(error.__cause__, RuntimeError):
            return RuntimeError(str(error))
        return error if _travels(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _travels(error: Exception) -> bool:
    """Can it be sent to another process? Those of ours and Python's own can."""
    return type(error).__module__ in ("builtins", "robustbench_lite.errors")


def _begin(parent: int, threads: int) -> None:
    """Set up a process: it leaves when its parent has died."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
