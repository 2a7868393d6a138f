"""The leaderboard as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import altair as alt
import vl_convert

from robustbench_lite.page import charts
from robustbench_lite.page.report import Board, Entry, Example, Report, Trial
from robustbench_lite.page.theme import HUES, theme

__all__ = ["Board", "Entry", "Example", "Report", "Trial", "page"]

_SCRIPTS = ("page.js", "charts.js", "gallery.js", "cards.js", "download.js")


def page(report: Report) -> str:
    """The report as one HTML file, which works from a disk and asks the network for nothing.

    Args:
        report: what to show.

    Raises:
        ValueError: a number of the report is NaN or infinite.
    """
    script = "".join(map(_asset, _SCRIPTS))
    parts = {
        "policy": _policy(_bundle(), script),
        "title": html.escape(report.title),
        "style": _asset("page.css"),
        "data": _inert(report.to_json()),
        "drawing": _inert(_drawing()),
        "bundle": _bundle(),
        "script": script,
    }
    # One pass, so that a mark within a text of the report stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """Only these scripts run, and nothing is loaded; Vega sets styles on what it draws."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _inert(text: str) -> str:
    """JSON that cannot end its script element, nor open a comment in it."""
    return text.replace("<", "\\u003c")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    if re.search("</script|<!--", script, re.IGNORECASE):
        raise RuntimeError("the Vega bundle cannot stand inside a script element")
    return f"(() => {{{script}}})();"  # its short global names would meet the page's own


@cache
def _drawing() -> str:
    """The charts without data, and what the page needs to fill them in."""
    empty = Entry(
        rank=1,
        model="",
        clean=0,
        clean_ci=(0, 0),
        robust=0,
        robust_ci=(0, 0),
        attacks={},
        queries=0,
    )
    drawn = {
        "curve": charts.curve_chart([]),
        "queries": charts.queries_chart([]),
        "classes": charts.class_chart([], []),
        "confusion": charts.confusion_chart(empty, []),
    }
    specs = {name: _without_data(chart) for name, chart in drawn.items()}
    themes = {scheme: theme(scheme) for scheme in HUES}
    layout = {
        "square": charts.CLASSES_IN_SQUARE,
        "rows": charts.CLASSES_IN_ROWS,
        "step": charts.STEP,
        "gap": charts.GAP,
        "cell": charts.CELL,
        "side": charts.SQUARE,
    }
    return json.dumps({"specs": specs, "themes": themes, "hues": HUES, "layout": layout})


def _without_data(chart: alt.LayerChart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict()
    return {key: spec[key] for key in spec if key not in {"config", "datasets"}}
