"""What is registered, written as Markdown into the pages when the site is built.

    ```{catalogue} attacks
    ```

A name that cannot be imported is a warning, so a site that would miss it is not built.
"""

import re
from collections.abc import Callable, Mapping

import doubted
import plans
import sources
import zoo
from sphinx.application import Sphinx

_PARTS: Mapping[str, Callable[[], str]] = {
    "attacks": plans.attacks,
    "attack-classes": plans.attack_classes,
    "defenses": plans.defenses,
    "defense-classes": plans.defense_classes,
    "threats": plans.threats,
    "suites": plans.suites,
    "architectures": sources.architectures,
    "data": sources.data,
    "models": sources.models,
    "zoo": zoo.zoo,
    "doubts": doubted.doubts,
}
_BLOCK = re.compile(r"^```\{catalogue\} ([\w-]+)\n```$", re.M)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    text, places = _BLOCK.subn(lambda block: _PARTS[block[1]](), source[0])
    if places:
        source[0] = text
        app.env.note_reread()  # what is registered may have changed at the next build


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
