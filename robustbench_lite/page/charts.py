"""The leaderboard's charts: Vega-Lite drawings of pieces of a report.

The page embeds the same charts without data and fills in the models that its reader chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from robustbench_lite.page.report import Entry, plain
from robustbench_lite.page.theme import PALE, theme

CLASSES_IN_ROWS = 20
CLASSES_IN_SQUARE = 30
_PUSHES = 60
_WIDTH, _HEIGHT = 560, 320
STEP, GAP = 9, 10  # of rows of one class, and between classes, in pixels
CELL, SQUARE = 34, 480  # side of a cell, and the most that the square may have, in pixels

# Wilson's interval (1927) of a share r of n samples, as in stats.wilson.
_Z2 = 1.959964**2
_CENTRE = f"(datum.robust + {_Z2 / 2} / datum.n) / (1 + {_Z2} / datum.n)"
_HALF = (
    f"sqrt({_Z2} * (datum.robust * (1 - datum.robust) + {_Z2 / 4} / datum.n) / datum.n)"
    f" / (1 + {_Z2} / datum.n)"
)


def curve_chart(entries: Sequence[Entry]) -> alt.LayerChart:
    """Robust accuracy over eps with its 95 % band, a line a model.

    Args:
        entries: the models; those without a curve are left out.
    """
    points = _points().transform_flatten(
        ["curve.eps", "curve.robust", "curve.low", "curve.high"],
        as_=["eps", "robust", "low", "high"],
    )
    eps = (
        alt.X("eps:Q")
        .title("eps, the size allowed")
        .scale(nice=False, zero=True)
        .axis(format="~g", tickCount=6)
    )
    told = [
        alt.Tooltip("model:N"),
        alt.Tooltip("eps:Q", format=".3~g"),
        alt.Tooltip("robust:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%", title="95 % from"),
        alt.Tooltip("high:Q", format=".1%", title="95 % to"),
    ]
    band = points.mark_area(opacity=0.16).encode(
        eps, _share("low"), alt.Y2("high:Q"), _model_colour()
    )
    line = points.mark_line(strokeWidth=2.2).encode(eps, _share("robust"), _model_colour())
    said = "Robust accuracy over eps, one line a model, with 95 percent bands"
    return _whole(
        [band, line, _targets(points, eps, told)], said, {"entries": _rows(entries, "curve")}
    )


def queries_chart(entries: Sequence[Entry]) -> alt.LayerChart:
    """Robust accuracy over the queries spent on a sample, a stair a model.

    Args:
        entries: the models; those without such a curve are left out.
    """
    points = (
        _points()
        .transform_flatten(
            ["by_queries.queries", "by_queries.robust"],
            as_=["queries", "robust"],
        )
        .transform_filter("datum.queries > 0")  # the axis is logarithmic
    )
    queries = (
        alt.X("queries:Q")
        .title("queries a sample")
        .scale(type="log", nice=False)
        .axis(format="~s", tickCount=6, grid=False)
    )
    told = [
        alt.Tooltip("model:N"),
        alt.Tooltip("queries:Q", format=",.0f"),
        alt.Tooltip("robust:Q", format=".1%"),
    ]
    line = points.mark_line(strokeWidth=2.2, interpolate="step-after").encode(
        queries, _share("robust"), _model_colour()
    )
    said = "Robust accuracy over the queries spent on a sample, one line a model"
    data = {"entries": _rows(entries, "by_queries")}
    return _whole([line, _targets(points, queries, told)], said, data)


def class_chart(entries: Sequence[Entry], classes: Sequence[str]) -> alt.LayerChart:
    """Robust accuracy of each class with its 95 % interval, and a tick for clean accuracy.

    Of more than 20 classes it shows the 20 that are weakest over these models.

    Args:
        entries: the models; those without figures by class are left out.
        classes: names of the classes, in the order of the labels.
    """
    rows = (
        _points()
        .transform_flatten(["by_class"], as_=["one"])
        .transform_calculate(
            label="datum.one.label",
            n="datum.one.n",
            clean="datum.one.clean",
            robust="datum.one.robust",
        )
        .transform_calculate(
            low=f"max(0, {_CENTRE} - {_HALF})",
            high=f"min(1, {_CENTRE} + {_HALF})",
        )
        .transform_joinaggregate(over_models="mean(robust)", groupby=["label"])
        .transform_window(
            place="dense_rank()",
            sort=[alt.SortField("over_models"), alt.SortField("label")],
        )
        .transform_filter(f"datum.place <= {CLASSES_IN_ROWS}")
        .transform_lookup("label", alt.LookupData(alt.NamedData("classes"), "label", ["name"]))
    )
    place = (
        alt.Y("name:N")
        .sort(field="label", op="min", order="ascending")
        .title(None)
        .axis(domain=False, ticks=False, grid=True)
    )
    beside = alt.YOffset("model:N").sort(None)
    told = [
        alt.Tooltip("model:N"),
        alt.Tooltip("name:N", title="class"),
        alt.Tooltip("n:Q", title="samples"),
        alt.Tooltip("clean:Q", format=".1%"),
        alt.Tooltip("robust:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%", title="95 % from"),
        alt.Tooltip("high:Q", format=".1%", title="95 % to"),
    ]
    interval = rows.mark_rule(strokeWidth=2, opacity=0.45).encode(
        _share_along("low"), place, beside, _model_colour(), tooltip=told
    )
    interval = interval.encode(alt.X2("high:Q"))
    clean = rows.mark_tick(thickness=2, size=STEP, opacity=0.8).encode(
        _share_along("clean"), place, beside, _model_colour(), tooltip=told
    )
    dot = rows.mark_point(size=34, filled=True, opacity=1).encode(
        _share_along("robust"), place, beside, _model_colour(), tooltip=told
    )
    said = "Robust and clean accuracy of each class, one dot a model"
    data = {"entries": _rows(entries, "by_class"), "classes": _names(classes)}
    tall = min(len(classes), CLASSES_IN_ROWS) * (len(data["entries"]) * STEP + GAP)
    return _whole([interval, clean, dot], said, data, height=tall)


def confusion_chart(entry: Entry, classes: Sequence[str]) -> alt.LayerChart:
    """Where the attacks push one model: a square of true class by class reached.

    Of more than 30 classes it shows those of the 60 most frequent pushes.

    Args:
        entry: the model.
        classes: names of the classes, in the order of the labels.
    """
    pushes = (
        _points()
        .transform_flatten(["confusion"], as_=["one"])
        .transform_calculate(
            label="datum.one.from", reached="datum.one.to", count="datum.one.count"
        )
        .transform_window(place="row_number()", sort=[alt.SortField("count", order="descending")])
        .transform_lookup(
            "label", alt.LookupData(alt.NamedData("classes"), "label", ["name", "shown"])
        )
        .transform_filter(f"datum.shown || datum.place <= {_PUSHES}")
        .transform_calculate(true="datum.name")
        .transform_lookup("reached", alt.LookupData(alt.NamedData("classes"), "label", ["name"]))
        .transform_calculate(found="datum.name")
    )
    own = (
        alt.Chart(alt.NamedData("classes"))
        .transform_filter("datum.shown")
        .transform_calculate(true="datum.name", found="datum.name")
    )
    across = (
        alt.X("found:N")
        .sort(None)
        .title("class reached")
        .axis(labelAngle=-45, labelLimit=90, labelOverlap=True)
    )
    down = alt.Y("true:N").sort(None).title("true class").axis(labelLimit=90, labelOverlap=True)
    told = [
        alt.Tooltip("true:N", title="true class"),
        alt.Tooltip("found:N", title="class reached"),
        alt.Tooltip("count:Q", title="samples"),
    ]
    diagonal = own.mark_point(shape="cross", size=16, opacity=0.35, filled=True).encode(
        across, down, color=alt.value(PALE["light"])
    )
    heat = pushes.mark_rect().encode(
        across,
        down,
        alt.Color("count:Q").title("samples").legend(orient="right", columns=1),
        tooltip=told,
    )
    said = "Where the attacks push: true class by class reached, darker for more samples"
    data = {"entries": _rows([entry], "confusion"), "classes": _names(classes)}
    side = min(CELL * max(len(classes), 4), SQUARE)
    return _whole([diagonal, heat], said, data, width=side, height=side)


def _rows(entries: Sequence[Entry], piece: str) -> list[dict[str, Any]]:
    found = (plain(entry) for entry in entries)
    return [{"model": row["model"], piece: row[piece]} for row in found if row[piece]]


def _names(classes: Sequence[str]) -> list[dict[str, Any]]:
    shown = len(classes) <= CLASSES_IN_SQUARE
    return [{"label": label, "name": name, "shown": shown} for label, name in enumerate(classes)]


def _points() -> alt.Chart:
    return alt.Chart(alt.NamedData("entries"))


def _share(name: str) -> alt.Y:
    axis = alt.Y(f"{name}:Q").title("robust accuracy").scale(domain=[0, 1], nice=False)
    return axis.axis(format="%", tickCount=5)


def _share_along(name: str) -> alt.X:
    axis = alt.X(f"{name}:Q").title("robust (dot), clean (tick)")
    return axis.scale(domain=[0, 1], nice=False).axis(format="%", tickCount=5)


def _model_colour() -> alt.Color:
    """Hues go by the order of the entries, which the page relies on."""
    return alt.Color("model:N").sort(None).title(None)


def _targets(points: alt.Chart, across: alt.X, told: list[alt.Tooltip]) -> alt.Chart:
    """Unseen points that are easy to hit with the pointer."""
    unseen: alt.Chart = points.mark_point(size=90, opacity=0, filled=True)
    return unseen.encode(across, _share("robust"), _model_colour(), tooltip=told)


def _whole(
    layers: list[alt.Chart],
    said: str,
    data: Mapping[str, list[dict[str, Any]]],
    *,
    width: int = _WIDTH,
    height: int = _HEIGHT,
) -> alt.LayerChart:
    chart = alt.LayerChart(
        layer=layers, description=said, datasets=dict(data), width=width, height=height
    )
    chart.config = alt.Config.from_dict(theme("light"))
    return chart
