"""A training run's curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lite.errors import InputError

if TYPE_CHECKING:
    from robustbench_lite.train import Progress

Report = Callable[["Progress"], None]


@contextmanager
def writing(folder: Path | None, report: Report) -> Iterator[Report]:
    """`report`, which also writes each epoch's figures as an event file to `folder`, if given.

    Raises:
        InputError: tensorboard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield report
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard needs tensorboard; "
            "install it with pip install 'robustbench-lite[tensorboard]'"
        ) from None
    try:
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise InputError(f"--tensorboard {folder} cannot be written ({error})") from error

    def both(progress: Progress) -> None:
        report(progress)
        if progress.epoch_over:
            figures = {
                "training/loss": progress.loss,
                "held out/clean accuracy": progress.clean,
                "held out/robust accuracy": progress.robust,
            }
            for name, value in figures.items():
                if value is not None:
                    writer.add_scalar(name, value, progress.epoch)

    try:
        yield both
    finally:
        writer.close()
