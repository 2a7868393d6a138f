"""Units on a Ray cluster: Ray places them, retries where a worker is lost, and gives out GPUs."""

from __future__ import annotations

from typing import Any, Self

from robustbench_lite.errors import InputError
from robustbench_lite.executor import attempted
from robustbench_lite.unit import Unit

_RETRIES = 3  # where a worker is lost; what a unit raises itself is its result


class OnRay:
    """Each unit on a core, or on a GPU if it wants one.

    Joins the cluster that RAY_ADDRESS names, or the one of this machine, or starts one here.

    Args:
        workers: units at a time; as many as the cluster has cores, or GPUs, if None.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, workers: int | None = None) -> None:
        try:
            import ray as module
        except ImportError:
            raise InputError(
                "--executor ray needs Ray; install it with pip install 'robustbench-lite[ray]'"
            ) from None
        self._ray: Any = module  # parts of it have no types
        self._workers = workers
        self._started = False
        self._running: dict[Any, Unit] = {}

    @property
    def slots(self) -> int:
        """Units at a time."""
        if self._workers is not None:
            return self._workers
        found = self._ray.cluster_resources()
        return max(1, int(found.get("GPU", 0) or found.get("CPU", 1)))

    def submit(self, unit: Unit) -> None:
        """Hand it to the cluster."""
        on_gpu = unit.device.startswith("cuda")
        task = self._ray.remote(
            num_cpus=0 if on_gpu else 1, num_gpus=int(on_gpu), max_retries=_RETRIES
        )(attempted)
        self._running[task.remote(unit)] = unit

    def next(self) -> tuple[Unit, bytes | Exception]:
        """Wait for one."""
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        unit = self._running.pop(done[0])
        try:
            return unit, self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            return unit, RuntimeError(f"Ray lost it {_RETRIES + 1} times ({type(error).__name__})")

    def __enter__(self) -> Self:
        import logging

        if self._ray.is_initialized():
            return self
        try:
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR)
            self._started = True
        except (ConnectionError, RuntimeError) as error:
            raise InputError(
                f"the Ray cluster cannot be reached ({error}); check RAY_ADDRESS"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._started:
            self._ray.shutdown()
