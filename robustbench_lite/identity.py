"""What decides an outcome, as one digest: weights, code, hyper-parameters, samples, seed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.attack import Attack, Plan
from robustbench_lite.errors import InputError
from robustbench_lite.threat import Threat

_BYTES = 16
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# What stores, compares and shows results, or is another's code and is counted where it is used.
OF_NO_CONSEQUENCE = (
    *("cli", "page", "displays", "testing", "zoo", "sources"),
    *("baseline.py", "checking.py", "gate.py", "gate_files.py", "evalues.py"),
    *("pytest_plugin.py", "pytest_checks.py"),
    *("comparison.py", "figures.py", "leaderboard.py", "score.py", "picture.py"),
    *("executor.py", "on_ray.py", "run.py", "store.py", "suite_file.py", "outcomes.py"),
    *("diagnosis.py", "otherwise.py", "export.py", "quiet.py"),
    *("downloads.py", "class_names.py", "indices.py"),
)


def digest(value: object) -> str:
    """32 hexadecimal digits of a value of JSON's types, whatever the order of its fields."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=_BYTES).hexdigest()


def described(value: object) -> Any:
    """A value as JSON's types: every field of a dataclass, arrays as digests.

    Raises:
        InputError: it holds something whose content cannot be told.
    """
    if isinstance(value, Enum):
        return described(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: described(getattr(value, f.name)) for f in fields(value)}
        version = getattr(value, "version", "")
        kind = {"kind": _name_of(type(value)), "fields": named}
        return kind | ({"version": version} if version else {})
    if isinstance(value, Mapping):
        return {str(key): described(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [described(inner) for inner in value]
    if isinstance(value, Tensor | np.ndarray):
        return _array(value)
    if isinstance(value, torch.dtype | torch.Size | torch.device | Path):
        return str(value)
    raise InputError(
        f"{value!r} cannot be put on record; use numbers, texts, arrays and dataclasses of them"
    )


def digest_of_model(model: nn.Module) -> str:
    """What decides a model's answers: weights, settings and the code of its modules."""
    seen = hashlib.blake2b(digest_size=_BYTES)
    for name, module in model.named_modules(remove_duplicate=False):
        own = {k: _told(v) for k, v in vars(module).items() if k not in _OF_EVERY_MODULE}
        line = [name, *_kind_of(module), own]
        seen.update(json.dumps(line, sort_keys=True).encode())
        tensors = {**module._parameters, **module._buffers}
        for key, tensor in sorted(tensors.items()):
            seen.update(json.dumps([key, described(tensor)]).encode())
    return seen.hexdigest()


def _told(value: object, outer: tuple[int, ...] = ()) -> Any:
    """As `described`; of what that refuses, what it is called and what it holds."""
    try:
        return described(value)
    except InputError:
        if id(value) in outer:
            return "itself"
    inside = (*outer, id(value))
    if isinstance(value, Mapping):
        return {str(key): _told(inner, inside) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_told(inner, inside) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(digest(_told(inner, inside)) for inner in value)
    if isinstance(value, partial):
        return _told((value.func, value.args, value.keywords), inside)
    if callable(value) and hasattr(value, "__qualname__"):
        module = str(value.__module__)
        line = getattr(getattr(value, "__code__", None), "co_firstlineno", 0)
        closure = getattr(value, "__closure__", None)
        cells = [c.cell_contents for c in closure] if isinstance(closure, tuple) else []
        return [module, value.__qualname__, _source_of(module), line, _told(cells, inside)]
    return [*_kind_of(value), _told(getattr(value, "__dict__", {}), inside)]


def _kind_of(value: object) -> list[Any]:
    """What it is called, and the code of its class and of all that this inherits from."""
    return [_name_of(type(value)), [_source_of(name) for name in _modules_of(value)]]


def _modules_of(value: object) -> list[str]:
    """Where its class and all that this inherits from are written, but for Python's own."""
    names = (kind.__module__ for kind in type(value).__mro__)
    return [n for n in dict.fromkeys(names) if n.partition(".")[0] not in sys.stdlib_module_names]


def digest_of_code(plan: Plan, threat: Threat) -> str:
    """The code that a plan runs: its attacks', its threat's and the engine's."""
    attacks = [stage.attack for stage in plan.stages(threat)]
    modules = {name for part in (plan, threat, *attacks) for name in _modules_of(part)}
    parts = {_package_of(name) for name in modules} | {_package_of(__name__)}
    return digest(sorted(parts))


def described_plan(plan: Plan, threat: Threat) -> Any:
    """The plan, and the stages that it has in the threat."""
    stages = [(described(s), _version(s.attack)) for s in plan.stages(threat)]
    return {"plan": described(plan), "stages": stages}


def _version(attack: Attack) -> str:
    return getattr(attack, "version", "")


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _array(value: Tensor | np.ndarray) -> str:
    whole = value.detach().cpu().contiguous() if isinstance(value, Tensor) else value
    if isinstance(whole, Tensor):
        content = whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    elif whole.dtype.hasobject:
        raise InputError("an array of objects cannot be put on record; use one of numbers")
    else:
        content = np.ascontiguousarray(whole).tobytes()
    seen = hashlib.blake2b(content, digest_size=_BYTES)
    seen.update(f"{whole.dtype} {tuple(whole.shape)}".encode())
    return seen.hexdigest()


@cache
def _source_of(module: str) -> str:
    """The digest of a module's file; "" for torch's own and for what has no file."""
    if module.partition(".")[0] == "torch":
        return ""
    return _digest_of_files(_files_of(module))


@cache
def _package_of(module: str) -> str:
    """The digest of all source files of the package that a module is in."""
    top = module.partition(".")[0]
    files = _files_of(top)
    if not files or files[0].name != "__init__.py":
        return _digest_of_files(_files_of(module))
    root = files[0].parent
    skipped = OF_NO_CONSEQUENCE if top == __name__.partition(".")[0] else ()
    found = (p for p in root.rglob("*.py") if p.relative_to(root).parts[0] not in skipped)
    return _digest_of_files(sorted(found))


def _files_of(module: str) -> list[Path]:
    file = getattr(sys.modules.get(module), "__file__", None)
    return [Path(file)] if file else []


def _digest_of_files(files: Iterable[Path]) -> str:
    seen = hashlib.blake2b(digest_size=_BYTES)
    for file in files:
        seen.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return seen.hexdigest()
