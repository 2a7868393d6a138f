"""How long `rbl --help` takes as a whole process, and that it does not import torch."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import sheet
from rounds import Laps, Run, measure, ratio

RBL, PYTHON = "rbl --help", "python alone"
_PEERS = ("torchattacks", "foolbox", "art.attacks.evasion", "adv_lib.attacks")


def main() -> None:
    """Measure and print; exit status 1 if torch is imported or rbl does not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(sys.executable).parent / "rbl"
    parser.add_argument("--rbl", type=Path, default=beside, help="the command's script")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the raw figures")
    options = parser.parse_args()

    if not options.rbl.is_file():
        print(f"{options.rbl} does not exist; install the project or give --rbl")
        sys.exit(2)
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", str(options.rbl), "--help"],
        capture_output=True,
        text=True,
    )
    if traced.returncode:
        reason = traced.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"rbl --help ends with status {traced.returncode}: {reason[0]}")
        sys.exit(1)
    imported = {
        line.rpartition("|")[2].strip()
        for line in traced.stderr.splitlines()
        if line.startswith("import time:")
    }

    commands = {
        RBL: [str(options.rbl), "--help"],
        PYTHON: [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    peers = [name for name in _PEERS if find_spec(name.partition(".")[0])]
    commands |= {f"import {name}": [sys.executable, "-c", f"import {name}"] for name in peers}
    runs = {name: _process(command) for name, command in commands.items()}
    measure(runs, 1)  # warm up the file cache
    laps = measure(runs, options.repeats)
    _print(laps, options.repeats)
    heavy = sorted({"torch", "torchvision", "pandas", "scipy", "sklearn"} & imported)
    print(
        f"rbl --help imports {len(imported)} modules, of the heavy ones: "
        f"{', '.join(heavy) or 'none'}"
    )
    missing = [name for name in _PEERS if name not in peers]
    sheet.print_footer([name.partition(".")[0] for name in missing])
    sheet.store(options.json, options, laps, {"modules": len(imported), "heavy": heavy})
    if "torch" in imported:
        print("FAIL: rbl --help imports torch")
        sys.exit(1)


def _process(command: list[str]) -> Run:
    def run(_round: int) -> None:
        subprocess.run(command, check=True, capture_output=True)

    return run


def _print(laps: dict[str, Laps], repeats: int) -> None:
    rows = [
        [name, *sheet.times(lap), sheet.cell(ratio(laps, name, [RBL]))]
        for name, lap in laps.items()
    ]
    columns = ["whole process", "s, median", "s, spread", "/ rbl --help"]
    sheet.print_table(f"{repeats} rounds after one to warm up the file cache", columns, rows)
    print("The peers have no command; what is timed for them is the import before any attack.")


if __name__ == "__main__":
    main()
