"""How measurements are shown and stored: one table, the machine line, a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rich.box
import torch
from rich.console import Console
from rich.table import Table
from rounds import Laps

_WIDTH = 170  # a log file has no width of its own, and a figure cut off is of no use
_PEERS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "adv-lib")


def machine() -> dict[str, Any]:
    """The facts that a time depends on."""
    return {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }


def versions() -> dict[str, str]:
    """The installed peers and ours."""
    found = {}
    for name in ("robustbench-lite", *_PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cells_of(file: Path) -> list[dict[str, Any]]:
    """The cells of a file with one JSON object a line; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_cell(file: Path, cell: Mapping[str, Any]) -> None:
    """Add a cell to such a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as cells:
        cells.write(json.dumps(cell) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with the names on the left and figures on the right."""
    table = Table(title=title or None, title_justify="left", box=rich.box.SIMPLE)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=_WIDTH).print(table)


def print_footer(missing: Sequence[str]) -> None:
    """Which peers are absent, the versions and the machine."""
    for name in missing:
        print(f"{name}: not installed, left out (see install.sh)")
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    print(", ".join(f"{name} {value}" for name, value in machine().items()))


def times(laps: Laps) -> list[str]:
    """Median and spread of the seconds, as cells."""
    return [f"{laps.median:.2f}", f"{laps.low:.2f} to {laps.high:.2f}"]


def cell(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def store(
    path: Path | None,
    options: argparse.Namespace,
    laps: Mapping[str, Laps],
    figures: Mapping[str, Any],
) -> None:
    """Write options, seconds by round and all figures to `path`, if there is one."""
    if path is None:
        return
    content = {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
        "machine": machine(),
        "versions": versions(),
        "seconds": {name: list(lap.seconds.values()) for name, lap in laps.items()},
        **figures,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"raw figures: {path}")
