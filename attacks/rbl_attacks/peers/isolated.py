"""Other people's code, seeded and silent; whatever it changes in the process is put back."""

import io
import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np
import torch


@contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global random generators are seeded and gradients are on.

    Prints, progress bars and warnings go nowhere. Afterwards generators, thread count, default
    dtype, torch's switches and the handlers of the root logger are as before.

    Args:
        seed: from 0 to 2**31 - 1.
        device: whose generator is to be put back, besides the CPU's.
    """
    cuda = [device.index or 0] if device.type == "cuda" else []
    nowhere = io.StringIO()
    restore = _photograph()
    with (
        torch.random.fork_rng(devices=cuda),
        torch.enable_grad(),
        warnings.catch_warnings(),
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        try:
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
        finally:
            for put_back in restore:
                put_back()


def _photograph() -> list[Callable[[], None]]:
    """What puts back each thing as it is now."""
    numpy_state = np.random.get_state(legacy=False)
    python_state = random.getstate()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    strict = torch.are_deterministic_algorithms_enabled()
    strict_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    anomaly = torch.is_anomaly_enabled()
    cudnn = torch.backends.cudnn
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def switches() -> None:
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(strict, warn_only=strict_warns)
        torch.autograd.set_detect_anomaly(anomaly)
        cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def logger() -> None:
        root.handlers[:] = handlers
        root.setLevel(level)

    return [
        lambda: np.random.set_state(numpy_state),
        lambda: random.setstate(python_state),
        switches,
        logger,
    ]
