"""Attacks, defenses, threats and suites, from the registry."""

import dataclasses
import inspect
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from prose import (
    code,
    escaped,
    fields,
    first_paragraph,
    label,
    paragraphs,
    rest,
    sections,
    table,
    told,
)

from robustbench_lite.attack import Attack, Plan
from robustbench_lite.cli.threats import reach_of
from robustbench_lite.defense import Training, Transform, Wrapping
from robustbench_lite.displays.words import distance, limits
from robustbench_lite.registry import Kind, find, registered
from robustbench_lite.suite import Suite
from robustbench_lite.threat import Lp, Norm

_EPS = 0.5


def attacks() -> str:
    """A table of all, and a section each."""
    found = {name: find(Kind.ATTACKS, name) for name in registered(Kind.ATTACKS)}
    rows = []
    for name, thing in found.items():
        plan = _plan(thing)
        reach = ", ".join(_reach(plan)) if plan else ""
        needs = plan.least_access.name.lower() if plan else ""
        minimal = "yes" if isinstance(plan, Attack) and plan.minimal else ""
        rows.append((f"[{code(name)}](#attack-{name})", _about(thing), needs, reach, minimal))
    return sections(
        [
            table(("attack", "what it is", "needs", "threats", "minimal"), rows),
            *(_attack(name, thing) for name, thing in found.items()),
        ]
    )


def _plan(thing: Any) -> Plan | None:
    """The attack with its defaults; None for another library's."""
    if isinstance(thing, Plan):
        return thing
    if inspect.isclass(thing) and issubclass(thing, Plan):
        return thing()
    return None


def _reach(plan: Plan) -> list[str]:
    norms, others = reach_of(plan, _EPS)
    return [*norms, *others]


def _about(thing: Any) -> str:
    """The first line of its docstring, of its module's where a module is one attack."""
    if isinstance(thing, Plan):
        return f"{len(thing.stages(Lp(Norm.LINF, _EPS)))} stages, each on the survivors of the last"
    module = inspect.getmodule(thing)
    text = inspect.getdoc(module) if inspect.isclass(thing) else inspect.getdoc(thing)
    return escaped(first_paragraph(text or ""))


def _attack(name: str, thing: Any) -> str:
    plan = _plan(thing)
    parts = [label("attack", name), f"## {name}", _about(thing)]
    if plan is None:
        text, _ = told(thing)
        return sections([*parts, paragraphs(rest(text)), f"Write {code(f'{name}:NAME')}."])
    if isinstance(thing, type):
        module = inspect.getdoc(inspect.getmodule(thing)) or ""
        text, names = told(thing)
        parts += [paragraphs(rest(module)), paragraphs(text), _facts(plan)]
        parts += [_settings(thing, names)]
    else:
        module = inspect.getmodule(type(plan))
        parts += [_facts(plan)]
    if not isinstance(plan, Attack):
        parts.append(_stages(plan))
    return sections(parts)


def _facts(plan: Plan) -> str:
    facts = [
        ("Needs", plan.least_access.name.lower()),
        ("Threats", ", ".join(map(code, _reach(plan)))),
    ]
    if isinstance(plan, Attack):
        curve = "yes: one run gives the robust accuracy at every eps" if plan.minimal else "no"
        goal = "yes" if plan.targetable else "no: it only leaves a class"
        facts += [("Minimal", curve), ("Targeted goals", goal)]
    return fields(facts)


def _settings(cls: Any, names: Mapping[str, str], without: frozenset[str] = frozenset()) -> str:
    """A table of a dataclass's fields with defaults."""
    rows = [
        (code(field.name), _default(field), escaped(names.get(field.name, "")))
        for field in dataclasses.fields(cls)
        if field.name not in without
    ]
    return table(("setting", "default", "meaning"), rows) if rows else "It has no settings."


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "none: give it"
    value = field.default
    return code(str(value) if isinstance(value, StrEnum) else repr(value))


def _stages(plan: Plan) -> str:
    """What a plan runs, by norm."""
    parts = []
    for norm in reach_of(plan, _EPS)[0]:
        lines = [str(stage) for stage in plan.stages(Lp(Norm(norm), _EPS))]
        parts.append("\n".join([f"Stages in {norm}, at eps {_EPS}:", "", "```text", *lines, "```"]))
    return "\n\n".join(parts)


def defenses() -> str:
    """A table of all, and a section each."""
    found = {name: find(Kind.DEFENSES, name) for name in registered(Kind.DEFENSES)}
    rows = [
        (f"[{code(name)}](#defense-{name})", _about_defense(cls), _where(cls))
        for name, cls in found.items()
    ]
    parts = [
        sections(
            [
                label("defense", name),
                f"## {name}",
                _about_defense(cls),
                paragraphs(told(cls)[0]),
                fields([("Acts", _where(cls)), ("Use", code(_use(name, cls))), *_adaptive(cls)]),
                _settings(cls, told(cls)[1]),
            ]
        )
        for name, cls in found.items()
    ]
    return sections([table(("defense", "what it is", "acts"), rows), *parts])


def _about_defense(cls: type) -> str:
    return escaped(first_paragraph(inspect.getdoc(inspect.getmodule(cls)) or ""))


def _where(cls: type) -> str:
    return "in training" if issubclass(cls, Training) else "when an image is classified"


def _use(name: str, cls: type) -> str:
    return f"rbl train --defense {name}" if issubclass(cls, Training) else f"--model MODEL+{name}"


def _adaptive(cls: type) -> list[tuple[str, str]]:
    """What an attacker who knows of it does."""
    if not issubclass(cls, Wrapping):
        return []
    how = []
    if issubclass(cls, Transform):
        own = cls.stand_in is not Transform.stand_in
        how.append("the gradient of its `stand_in`" if own else "the gradient of the identity")
    if cls.randomized:
        how.append("averages over draws")
    return [("Attackers take", ", ".join(how))] if how else []


def threats() -> str:
    """The threats without a norm."""
    parts = []
    for name in registered(Kind.THREATS):
        cls = find(Kind.THREATS, name)
        text, names = told(cls)
        parts.append(
            sections(
                [
                    label("threat", name),
                    f"### {name}",
                    paragraphs(text),
                    fields([("Use", code(f"--threat {name}:KEY=VALUE,..."))]),
                    _settings(cls, names, frozenset({"access", "queries"})),
                ]
            )
        )
    return sections(parts)


def suites() -> str:
    """A section each, with the trials by data."""
    return sections(_suite(name, find(Kind.SUITES, name)) for name in registered(Kind.SUITES))


def _suite(name: str, suite: Suite) -> str:
    starts: dict[Any, list[str]] = {}
    for start, trials in suite.trials.items():
        starts.setdefault(trials, []).append(code(f"{start}*") if start else "any")
    rows = [
        (
            ", ".join(names) if place == 0 else "",
            code(trial.name),
            code(trial.attack),
            escaped(distance(trial.threat) + limits(trial.threat)),
        )
        for trials, names in starts.items()
        for place, trial in enumerate(trials)
    ]
    width = f"{suite.n} samples of seed {suite.seed}, {suite.slice} a unit of work."
    return sections(
        [
            label("suite", name),
            f"## {name}",
            escaped(suite.summary),
            table(("data", "trial", "attack", "threat"), rows),
            f"{width} Use: {code(f'rbl bench {name}')}.",
        ]
    )


def attack_classes() -> str:
    """Autodoc of every registered attack's class."""
    return _classes(Kind.ATTACKS)


def defense_classes() -> str:
    """Autodoc of every registered defense's class."""
    return _classes(Kind.DEFENSES)


def _classes(kind: Kind) -> str:
    found = [find(kind, name) for name in registered(kind)]
    names = dict.fromkeys(f"{c.__module__}.{c.__qualname__}" for c in found if inspect.isclass(c))
    lines = [f".. autoclass:: {name}\n   :show-inheritance:\n" for name in names]
    return "\n".join(["```{eval-rst}", *lines, "```"])
