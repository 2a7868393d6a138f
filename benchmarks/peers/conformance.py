"""Which of our promises do other libraries' attacks keep? Writes CONFORMANCE.md beside this file.

.venv/bin/python benchmarks/peers/conformance.py                    # the whole table
.venv/bin/python benchmarks/peers/conformance.py --only torchattacks:CW advlib:ddn   # to the screen

Each attack runs in a process of its own, with one thread and a limit of CPU time.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from candidates import OURS, Entry, entries
from sheet import versions

from robustbench_lite.results import Outcome
from robustbench_lite.testing import CHECKS, Check, run_check, threats_of
from robustbench_lite.testing.trial import PromiseError, Trial, shortened

_HERE = Path(__file__).parent
_OUT = _HERE / "CONFORMANCE.md"
_LONGEST = 220
_WALL = 10  # a process may take so many times its CPU time, on a busy machine
_RECORD = re.compile(r"Record\(.*?robust=(\w+), size=([^,]*),.*?trace=\(\)\)")
_STEPS = 90  # as in run_check
_INVARIANCE = ("batch_invariant", "exact_invariant")
_OK, _FAIL, _IDLE, _LATE, _CRASH = "ok", "FAIL", "-", "t/o", "crash"

_INTRO = """# What other libraries' attacks keep to

The checks of `rbl validate`, on the attacks that people use. Written by

    .venv/bin/python benchmarks/peers/conformance.py

- The attacks run under our judge (`rbl_attacks.peers`). It mends what it can: global random
  numbers, thread counts, modes and gradients of the model are put back, prints are swallowed, and
  nothing outside eps counts. So `model_untouched`, `process_untouched`, `access_kept` and
  `examples_hold` speak for the adapter as well.
- The library is asked for its best image and only that is judged, as its users do.
- What a library asks is charged to the images of a batch in equal parts, so queries are left out of
  `batch_invariant` and `exact_invariant`; what is found must be the same. Random numbers that are
  drawn for the batch as a whole, as they all do, make an image depend on its batch-mates.
- A success must win by more than rounding. Models are tiny and their answers known.
- Steps are set to about 90 in all, which is what the checks allow to an attack of ours; settings
  are in the commands below, everything else is the library's default. Step sizes that the library
  gives together with its default eps keep their ratio to eps.
- `ok`: the promise is kept. `FAIL`: it is not. `-`: it does not apply, as no library takes a cap
  on queries. `t/o`: not within {seconds} s of CPU time for all checks. `crash`: the process died.
"""


@dataclass(frozen=True)
class Row:
    """What was seen of one attack: by check, the verdict and the detail."""

    entry: Entry
    seen: dict[str, tuple[str, str]]

    @property
    def counts(self) -> Counter[str]:
        """How often each verdict was given."""
        return Counter(verdict for verdict, _ in self.seen.values())


class Uncounted(Trial):
    """As the trial, but no record tells its cost: rows of a library are shared by its batch."""

    def run(self, *args: Any, **kwargs: Any) -> Outcome:
        """The judge's outcome without queries."""
        outcome = super().run(*args, **kwargs)
        records = tuple(replace(r, queries=0, backwards=0) for r in outcome.records)
        return replace(outcome, records=records)


def _check(name: str, entry: Entry) -> Check:
    """One check, as `rbl validate` runs it; the invariance of a library's attack less its cost."""
    plan = entry.plan()
    threats = tuple(t for t in threats_of(plan) if t.norm == entry.norm)
    if entry.library == OURS or name not in _INVARIANCE:
        return run_check(name, plan, threats)
    try:
        return Check(name, True, CHECKS[name](Uncounted(shortened(plan, _STEPS), threats)))
    except PromiseError as failure:
        return Check(name, False, str(failure))
    except Exception as error:  # as in run_check
        return Check(name, False, f"{type(error).__name__}: {error}")


def _verdict(entry: Entry, check: Check) -> str:
    """A library takes no cap on queries: what needs one does not apply, the rest was kept."""
    if entry.library != OURS and check.detail.startswith("UnsupportedError"):
        return {"query_cap": _IDLE, "exact_invariant": _OK}.get(check.name, _FAIL)
    return {"kept": _OK, "BROKEN": _FAIL, "-": _IDLE}[check.verdict]


def check_here(entry: Entry, seconds: int) -> None:
    """Run every check and print one line of JSON each; the process dies when its time is up."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in CHECKS:
        check = _check(name, entry)
        print(json.dumps([name, _verdict(entry, check), check.detail]), flush=True)


def check_apart(entry: Entry, seconds: int) -> Row:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--here", " ".join([entry.attack, entry.norm])]
    command[-1] = " ".join([command[-1], *entry.settings])
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [*command, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | quiet,
    ) as process:
        try:
            output, errors = process.communicate(timeout=_WALL * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
    late = process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    last = errors.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    rest = (_LATE, f"{seconds} s of CPU time") if late else (_CRASH, last[0])
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    seen = {name: (verdict, detail) for name, verdict, detail in lines}
    return Row(entry, {name: seen.get(name, rest) for name in CHECKS})


def report(rows: Sequence[Row], seconds: int) -> str:
    """The whole page."""
    parts = [_INTRO.format(seconds=seconds), _numbers(), ""]
    for library in dict.fromkeys(row.entry.library for row in rows):
        mine = [row for row in rows if row.entry.library == library]
        parts += [f"## {library}", "", _total(mine), "", *_table(mine), "", *_reasons(mine), ""]
    parts.append(", ".join(f"{name} {number}" for name, number in versions().items()) + ".")
    return "\n".join(parts) + "\n"


def _numbers() -> str:
    lines = (
        f"{i}. `{name}`: {(inspect.getdoc(check) or '').splitlines()[0]}"
        for i, (name, check) in enumerate(CHECKS.items(), 1)
    )
    return "\n".join(lines)


def _total(rows: Sequence[Row]) -> str:
    count = sum((row.counts for row in rows), Counter[str]())
    whole = sum(not (set(row.counts) - {_OK, _IDLE}) for row in rows)
    told = ", ".join(f"{count[mark]} {mark}" for mark in (_OK, _FAIL, _LATE, _CRASH))
    return f"{whole} of {len(rows)} attacks keep everything that applies. In all: {told}."


def _table(rows: Sequence[Row]) -> list[str]:
    numbers = [str(i) for i in range(1, len(CHECKS) + 1)]
    lines = [
        "| attack | norm | kept | " + " | ".join(numbers) + " |",
        "|---|---|---|" + "---|" * len(numbers),
    ]
    for row in rows:
        count = row.counts
        kept = f"{count[_OK]} of {len(CHECKS) - count[_IDLE]}"
        marks = " | ".join(row.seen[name][0] for name in CHECKS)
        name = row.entry.attack.partition(":")[2] or row.entry.attack
        lines.append(f"| {name} | {row.entry.norm} | {kept} | {marks} |")
    return lines


def _reasons(rows: Sequence[Row]) -> list[str]:
    """One line a reason, with the command that repeats it; numbers in a reason do not matter."""
    lines = []
    for row in rows:
        alike: dict[str, list[tuple[str, str]]] = {}
        for name, (verdict, detail) in row.seen.items():
            if verdict in (_FAIL, _CRASH):
                alike.setdefault(re.sub(r"[0-9]+", "0", detail), []).append((name, detail))
        for same in alike.values():
            text = " ".join(_RECORD.sub(r"robust=\1 size=\2", same[0][1]).split())
            text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
            lines.append(f"- `{row.entry.command([name for name, _ in same])}`<br>{text}")
    return lines


def main() -> None:
    """Check everything, or what --only names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ATTACK", default=[])
    parser.add_argument("--seconds", type=int, default=60, help="of CPU time for each attack")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        check_here(Entry.parse(options.here), options.seconds)
        return
    chosen = [e for e in entries() if not options.only or e.attack in options.only]
    rows = []
    for entry in chosen:
        rows.append(check_apart(entry, options.seconds))
        told = ", ".join(f"{n} {verdict}" for verdict, n in rows[-1].counts.most_common())
        print(f"{entry.attack}: {told}", file=sys.stderr, flush=True)
    page = report(rows, options.seconds)
    if options.only:
        print(page)
    else:
        _OUT.write_text(page)


if __name__ == "__main__":
    main()
