"""Where models and data come from, as their own docstrings tell it."""

from prose import code, escaped, first_paragraph, label, paragraphs, rest, sections, table, told
from sphinx.util import logging

from robustbench_lite.errors import InputError
from robustbench_lite.model_specs import is_source
from robustbench_lite.registry import Kind, find, registered

_log = logging.getLogger(__name__)


def models() -> str:
    """Every source of models from elsewhere."""
    names = [name for name in registered(Kind.MODELS) if comes_from_elsewhere(name)]
    return _sections(Kind.MODELS, "source", names)


def data() -> str:
    """Every source of data."""
    return _sections(Kind.DATA, "data", registered(Kind.DATA))


def architectures() -> str:
    """What `rbl train --arch` takes, as a table."""
    rows = []
    for name in registered(Kind.ARCHITECTURES):
        text, _ = told(find(Kind.ARCHITECTURES, name))
        rows.append((code(name), escaped(first_paragraph(text))))
    return table(("architecture", "what it is"), rows)


def comes_from_elsewhere(name: str) -> bool:
    """Is a registered name a source of models, and not one model?"""
    try:
        return is_source(name)
    except InputError:
        return True  # `_sections` tells why it cannot be imported


def _sections(kind: Kind, prefix: str, names: object) -> str:
    rows, parts = [], []
    for name in names:
        try:
            text, _ = told(find(kind, name))
        except InputError as error:
            _log.warning("%s", error)
            continue
        rows.append((f"[{code(name)}](#{prefix}-{name})", escaped(first_paragraph(text))))
        parts += [label(prefix, name), f"## {name}", escaped(first_paragraph(text))]
        parts += [paragraphs(rest(text))]
    return sections([table(("name", "what it is"), rows), *parts])
