"""The directive `shown`, which runs a small example and shows what a notebook would."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from robustbench_lite import Lp, Norm, evaluate, load_attack, load_data, load_model
from robustbench_lite.suite import load_suite


def _outcome() -> object:
    data = load_data("digits").sample(200)
    return evaluate(load_model("digits-cnn"), load_attack("pgd"), Lp(Norm.LINF, 0.15), data)


_EXAMPLES: Mapping[str, Callable[[], object]] = {
    "outcome": _outcome,
    "suite": lambda: load_suite("linf"),
}


class Shown(SphinxDirective):
    """`shown NAME`: the HTML of one example."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """One raw node."""
        return [nodes.raw("", _EXAMPLES[self.arguments[0]]()._repr_html_(), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("shown", Shown)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
