"""`rbl list` and `rbl show`: what there is, and what one thing can be told."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_lite.errors import InputError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from robustbench_lite.attack import Plan
    from robustbench_lite.registry import Kind
    from robustbench_lite.suite import Suite, Trial


def list_names(
    kind: Annotated[
        str,
        typer.Argument(help="models, attacks, defenses, data, threats, architectures or suites."),
    ],
) -> None:
    """List what is registered, ours and other packages'."""
    from rich.table import Table

    from robustbench_lite.cli import screen
    from robustbench_lite.registry import Kind, registered

    if kind not in list(Kind):
        raise InputError(f"there is no list of {kind!r}; choose from {', '.join(Kind)}")
    chosen = Kind(kind)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name in registered(chosen):
        table.add_row(name, _line(chosen, name))
    screen.console().print(table)


def _line(kind: Kind, name: str) -> str:
    from robustbench_lite.cli.screen import distance
    from robustbench_lite.model_specs import is_source
    from robustbench_lite.models import load_card, weights_of
    from robustbench_lite.registry import Kind, find

    if kind is Kind.MODELS and not is_source(name):
        weights = weights_of(name)
        if not weights.is_file():
            return f"not installed: {weights.name} is missing; reinstall its package."
        card = load_card(name)
        m = card.measured
        return (
            f"{card.summary} Clean {100 * m.clean_accuracy:.1f} %, "
            f"{distance(card.threat)}: {100 * m.robust_accuracy:.1f} %."
        )
    if kind is Kind.SUITES:
        return str(find(kind, name).summary)
    if kind is Kind.THREATS:  # several live in one module, so the class itself tells
        return _unfolded(inspect.getdoc(find(kind, name)) or "").split("\n")[0]
    return _first_line(find(kind, name))


def _first_line(thing: Any) -> str:
    from robustbench_lite.attack import Plan

    if isinstance(thing, Plan):
        return str(thing)
    module = inspect.getmodule(thing)
    text = inspect.getdoc(module) if inspect.isclass(thing) else inspect.getdoc(thing)
    return (text or "").split("\n\n")[0].replace("\n", " ")


def _unfolded(text: str) -> str:
    """Paragraphs as one line each, for the terminal to fold; indented sections as they are."""
    parts = text.rstrip().split("\n\n")
    return "\n\n".join(part if "\n " in part else part.replace("\n", " ") for part in parts)


def _arguments(text: str) -> tuple[str, dict[str, str]]:
    """A docstring without its section Args, and what that section says of each name."""
    section = re.search(r"\n*^Args:\n((?: +.*\n?)+)", text, re.MULTILINE)
    if section is None:
        return text, {}
    entries = re.split(r"^ {4}(\w+): ", section[1], flags=re.MULTILINE)[1:]
    told = {name: " ".join(said.split()) for name, said in zip(*[iter(entries)] * 2, strict=True)}
    parts = (text[: section.start()], text[section.end() :].strip("\n"))
    return "\n\n".join(part for part in parts if part), told


def show(name: Annotated[str, typer.Argument(help="A name that rbl list shows.")]) -> None:
    """Show one model, attack, defense, data set, suite or architecture."""
    from robustbench_lite.cli import screen
    from robustbench_lite.model_specs import is_source
    from robustbench_lite.models import load_card, weights_of
    from robustbench_lite.registry import Kind, find, registered

    kinds = [kind for kind in Kind if name in registered(kind)]
    if not kinds and name.endswith(".safetensors"):
        kinds = [Kind.MODELS]
    if not kinds:
        raise unknown(
            "model, attack, defense or data set", name, [n for k in Kind for n in registered(k)]
        )
    out = screen.console()
    for kind in kinds:
        if kind is Kind.MODELS and not is_source(name):
            from robustbench_lite.card import card_text

            card = load_card(name)
            _title(out, name, str(weights_of(name)))
            out.print(card_text(card), soft_wrap=True)
        elif kind is Kind.SUITES:
            _show_suite(out, find(kind, name))
        else:
            _describe(out, kind, name, find(kind, name))


def _show_suite(out: Console, suite: Suite) -> None:
    from rich.table import Table

    from robustbench_lite.cli.screen import distance

    _title(out, suite.name, f"suite: {suite.summary}")
    by_trials: dict[tuple[Trial, ...], list[str]] = {}
    for start, trials in suite.trials.items():
        by_trials.setdefault(trials, []).append(start or "any data")
    table = Table(box=None, pad_edge=False)
    for head in ("data", "trial", "attack", "threat"):
        table.add_column(head, overflow="fold")
    for trials, starts in by_trials.items():
        for number, trial in enumerate(trials):
            where = ", ".join(f"{start}*" for start in starts) if number == 0 else ""
            table.add_row(
                where.replace("any data*", "any"),
                trial.name,
                str(trial.attack),
                distance(trial.threat),
            )
    out.print(table)
    seed, width = suite.seed, suite.slice
    out.print(f"\n{suite.n} samples of seed {seed}, {width} a unit of work; rbl bench {suite.name}")


def _title(out: Console, name: str, rest: str) -> None:
    from rich.text import Text

    out.print(Text.assemble((name, "bold"), "  ", rest), soft_wrap=True)
    out.print()


def _describe(out: Console, kind: Kind, name: str, thing: Any) -> None:
    from rich.table import Table

    from robustbench_lite.attack import Attack, Plan
    from robustbench_lite.defense import Wrapping
    from robustbench_lite.registry import Kind

    if isinstance(thing, Plan):
        _title(out, name, "attack: a fixed plan; the survivors of a stage go on to the next")
        _show_stages(out, thing)
        return
    _title(out, name, f"{str(kind).removesuffix('s')}: {_first_line(thing)}")
    text, told = _arguments((inspect.getdoc(thing) or "") if inspect.isclass(thing) else "")
    if text:
        out.print(_unfolded(text) + "\n")
    if dataclasses.is_dataclass(thing):
        how = "--set KEY=VALUE"
        if kind is Kind.THREATS:
            how = f"--threat {name}:KEY=VALUE,..."
        elif inspect.isclass(thing) and issubclass(thing, Wrapping):
            how = f"--model MODEL+{name}?KEY=VALUE&..."
        out.print(f"Settings ({how}) and their defaults:")
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for field in dataclasses.fields(thing):
            if kind is Kind.THREATS and field.name in ("access", "queries"):  # options of their own
                continue
            default = "" if field.default is dataclasses.MISSING else f" = {field.default}"
            table.add_row(f"  {field.name}{default}", told.get(field.name, ""))
        out.print(table)
    elif kind is Kind.ATTACKS and not inspect.isclass(thing):
        out.print(f"Write {name}:NAME, with the settings of its attack NAME.")
    elif kind in (Kind.MODELS, Kind.DATA):
        more = (inspect.getdoc(thing) or "").partition("\n\n")[2].partition("Raises:")[0]
        out.print(_unfolded(more.strip()))
    elif not inspect.isclass(thing):
        out.print(f"{name}{inspect.signature(thing)}")
    if inspect.isclass(thing) and issubclass(thing, Attack):
        _show_reach(out, thing)
    elif inspect.isclass(thing) and issubclass(thing, Plan):
        out.print("\nThe survivors of a stage go on to the next.")
        _show_stages(out, thing())


def _show_stages(out: Console, plan: Plan) -> None:
    """What a plan runs, by norm where that matters."""
    from robustbench_lite.cli.threats import reach_of
    from robustbench_lite.threat import Lp, Norm

    by_norm = {
        norm: [
            f"{times} x {stage}" if (times := len(list(same))) > 1 else str(stage)
            for stage, same in itertools.groupby(plan.stages(Lp(Norm(norm), 0.5)))
        ]
        for norm in reach_of(plan, 0.5)[0]
    }
    alike = len({tuple(lines) for lines in by_norm.values()}) < 2
    for norm, lines in by_norm.items():
        if not alike:
            out.print(f"{norm}:")
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)
        if alike:
            break


def _show_reach(out: Console, cls: Any) -> None:
    from robustbench_lite.cli.threats import reach_of

    try:
        attack = cls()
    except TypeError:  # a setting without a default
        return
    norms, others = reach_of(attack, 0.5)
    reach = [f"Norms: {', '.join(norms)}."] if norms else []
    reach += [f"Other threats: {', '.join(others)}."] if others else []
    out.print(f"\n{' '.join(reach)} Needs {attack.needs.name.lower()}.")
    if not attack.targetable:
        out.print("It only leaves a class; it cannot reach for one.")
    if attack.minimal:
        out.print("Shrinks the perturbation: one run gives the robust accuracy at every eps.")
