"""Docstrings and values as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([\\*_<>\[\]{}$|#])")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(10\.[^\s,;)]+)")
_SECTION = re.compile(
    r"^(Args|Attributes|Returns|Raises|Yields):\n((?: +.*(?:\n|$)|\n(?= ))+)", re.M
)
_ENTRY = re.compile(r"^ {4}(\w+): ", re.M)


def escaped(text: str) -> str:
    """Plain text, code between backticks; papers become links."""
    parts = re.split(r"(`[^`]+`)", with_options_as_code(text))
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def with_options_as_code(text: str) -> str:
    """The text with `--option` between backticks, which keep its dashes apart."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else _OPTION.sub(r"`\g<0>`", p) for p in parts)


def _plain(text: str) -> str:
    text = _MARKS.sub(r"\\\1", text)
    text = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return _DOI.sub(r"[doi:\1](https://doi.org/\1)", text)


def code(value: object) -> str:
    """A value as code; it holds no backtick."""
    return f"`{value}`"


def paragraphs(text: str) -> str:
    """Paragraphs of a docstring; those with indented lines are shown as they are."""
    shown: list[str] = []
    kept: list[str] = []
    for part in [*re.split(r"\n{2,}", text.strip("\n")), ""]:
        if _is_kept(part):
            kept.append(part)
            continue
        if kept:  # paragraphs of one program
            shown.append(
                "\n".join(["```text", *textwrap.dedent("\n\n".join(kept)).split("\n"), "```"])
            )
            kept = []
        shown.append(_flowing(part))
    return "\n\n".join(filter(None, shown))


def _is_kept(part: str) -> bool:
    return not re.match(r"[-*] ", part) and any(line.startswith(" ") for line in part.split("\n"))


def _flowing(part: str) -> str:
    if re.match(r"[-*] ", part):
        items = re.split(r"^[-*] ", part, flags=re.M)[1:]
        return "\n".join(f"- {escaped(' '.join(item.split()))}" for item in items)
    return escaped(" ".join(part.split("\n")))


def told(thing: object) -> tuple[str, dict[str, str]]:
    """A docstring without its sections, and what its section Args says of each name."""
    text = inspect.getdoc(thing) or ""
    names: dict[str, str] = {}
    for section, body in _SECTION.findall(text):
        if section == "Args":
            parts = _ENTRY.split(body)[1:]
            names = {
                name: " ".join(said.split()) for name, said in zip(*[iter(parts)] * 2, strict=True)
            }
    return _SECTION.sub("", text).strip("\n"), names


def first_paragraph(text: str) -> str:
    """As one line."""
    return " ".join(text.split("\n\n")[0].split())


def rest(text: str) -> str:
    """All but the first paragraph."""
    return text.partition("\n\n")[2].strip("\n")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def fields(values: Iterable[tuple[str, str]]) -> str:
    """A list of names and what is to be said of them."""
    return "\n".join(f"- {name}: {value}" for name, value in values)


def label(kind: str, name: str) -> str:
    """The target of a section; `{ref}` and links reach it."""
    return f"({kind}-{name})="


def sections(parts: Iterable[str]) -> str:
    """Parts with an empty line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"
