"""Colours of the charts, for light and for dark pages."""

from __future__ import annotations

from typing import Any

# Eight hues of a similar weight that stay apart for the colour-blind: on white, then on black.
HUES = {
    "light": [
        "#0b66b3",
        "#c2500c",
        "#00795c",
        "#9a3d8f",
        "#7d6400",
        "#5a5fd0",
        "#b3274e",
        "#4d6673",
    ],
    "dark": [
        "#63b0f2",
        "#f0914c",
        "#3fc79f",
        "#dc8fd2",
        "#d3b53f",
        "#a3a6ff",
        "#f58aa2",
        "#a9c0cc",
    ],
}
_INK = {"light": "#1d242b", "dark": "#e4e8ec"}
PALE = {"light": "#59646e", "dark": "#a3adb6"}
_GRID = {"light": "#dde2e6", "dark": "#343c44"}
_HEAT = {
    "light": ["#c9dff5", "#82b3e2", "#2f7cc0", "#0b4a86"],
    "dark": ["#264a6d", "#2f6fa8", "#4d9bdd", "#bfe0ff"],
}


def theme(scheme: str) -> dict[str, Any]:
    """Vega-Lite's configuration for a page that is "light" or "dark"."""
    return {
        "background": "transparent" if scheme == "dark" else "white",
        "font": "system-ui, 'DejaVu Sans', sans-serif",
        "axis": {
            "labelColor": PALE[scheme],
            "titleColor": _INK[scheme],
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 13,
            "gridColor": _GRID[scheme],
            "domainColor": _GRID[scheme],
            "tickColor": _GRID[scheme],
        },
        "legend": {
            "labelColor": _INK[scheme],
            "titleColor": _INK[scheme],
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 13,
            "labelLimit": 320,
            "orient": "bottom",
            "columns": 2,
            "symbolOpacity": 1,
        },
        "view": {"stroke": "transparent"},
        "text": {"color": _INK[scheme]},
        "range": {"category": HUES[scheme], "heatmap": _HEAT[scheme]},
    }
