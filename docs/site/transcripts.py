"""What the pages' commands print, kept true: `python docs/site/transcripts.py` writes it anew.

A block `console` has commands after `$ `; a block `{code-block} python` with a caption is the file
of that name. The blocks of a page are gone through in order, in one folder.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

PAGES = ("index.md", "tutorial.md")

_BLOCK = re.compile(r"^```(\S.*)\n((?:.*\n)*?)```$", re.M)
_CAPTION = re.compile(r":caption: (\S+)\n(?::.*\n)*\n?")
_TABLE = re.compile(r"^(.* seconds)\n((?:.*[\d.]+\n)+)", re.M)

Run = Callable[[str, Path], tuple[str, int]]


def retold(page: str, folder: Path, run: Run) -> str:
    """The page with what its commands print now.

    Args:
        page: Markdown.
        folder: where files are written and commands run.
        run: takes a command and the folder; returns what it printed and its exit code.
    """
    code = 0

    def replay(block: re.Match[str]) -> str:
        nonlocal code
        kind, content = block.groups()
        caption = _CAPTION.match(content)
        if kind == "{code-block} python" and caption:
            (folder / caption[1]).write_text(content[caption.end() :])
        if kind != "console":
            return block[0]
        told = []
        for command in re.findall(r"^\$ (.+)$", content, re.M):
            told.append(f"$ {command}")
            if command == "echo $?":
                told.append(str(code))
                continue
            printed, code = run(command, folder)
            told += [line.rstrip() for line in printed.rstrip("\n").split("\n")]
        return "\n".join(["```console", *told, "```"])

    return _BLOCK.sub(replay, page)


def without_seconds(page: str) -> str:
    """The page without the last column of tables that end with seconds, which always differ."""

    def cut(table: re.Match[str]) -> str:
        return table[1] + "\n" + re.sub(r" +[\d.]+$", "", table[2], flags=re.M)

    return _TABLE.sub(cut, page)


def _run(command: str, folder: Path) -> tuple[str, int]:
    here = str(Path(sys.executable).parent)
    plain = {"NO_COLOR": "1", "PATH": os.pathsep.join([here, os.environ.get("PATH", "")])}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | plain,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.stdout, done.returncode


if __name__ == "__main__":
    for name in PAGES:
        page = Path(__file__).with_name(name)
        with tempfile.TemporaryDirectory() as folder:
            text = retold(page.read_text("utf-8"), Path(folder), _run)
        page.write_text(text, "utf-8")
