"""Lists of names on the command line, and patterns of models."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_lite.errors import InputError


def split(text: str, option: str) -> list[str]:
    """The names in a text, which are separated by commas.

    Raises:
        InputError: there is none, or one comes twice.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError(f"{option} is empty; name one or more, separated by commas")
    if len(set(names)) < len(names):
        raise InputError(f"{option} names something twice; name each once")
    return names


def matching(specs: Sequence[str]) -> dict[str, bool]:
    """The models of names and patterns, each once; was it named itself?

    Raises:
        InputError: a pattern matches nothing.
    """
    from fnmatch import fnmatchcase

    from robustbench_lite.model_specs import is_source
    from robustbench_lite.registry import Kind, registered

    found: dict[str, bool] = {}
    for spec in specs:
        name, plus, defenses = spec.partition("+")
        if "*" not in name:
            found[spec] = True
            continue
        near = [n for n in registered(Kind.MODELS) if fnmatchcase(n, name)]
        known = [n for n in near if not is_source(n)]
        if not known:
            raise InputError(f"--models {spec!r} matches no model; see rbl list models")
        for n in known:
            found.setdefault(f"{n}{plus}{defenses}", False)
    return found
