"""What a notebook shows of outcomes, boards and suites: the figures, in its own colours."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from robustbench_lite.evidence import Evidence, Health
from robustbench_lite.leaderboard import Board
from robustbench_lite.results import Outcome, Record
from robustbench_lite.running import Precision
from robustbench_lite.score import Row, Score
from robustbench_lite.suite import Suite, Trial, load_suite
from robustbench_lite.threat import Access, Lp, Norm
from robustbench_lite.trust import warn

HOSTILE = "<img src=x onerror=alert(1)>"
BREAKOUT = "</td><script>alert('2')</script>&amp;"
ALLOWED = {
    *("div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "span", "ul", "li"),
}


class Shown(HTMLParser):
    """The texts of cells row by row, those of all other elements, and how bars are labelled."""

    def __init__(self, value):
        super().__init__()
        self.html = value._repr_html_()
        self.open, self.rows, self.texts, self.bars, self.styles = [], [], [], [], []
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert tag in ALLOWED
        assert found.keys() <= {"style", "role", "aria-label"}
        self.open.append(tag)
        self.styles.append(found.get("style", ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("p", "li"):
            self.texts.append("")
        if found.get("role") == "img":
            self.bars.append(found["aria-label"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif {"p", "li"} & set(self.open):
            self.texts[-1] += data
        else:
            pytest.fail(f"text outside of everything: {data!r}")


def outcome(**changes):
    records = [
        Record(f"s{i}", i % 3, i < 9, i < 4, 0.02 if 4 <= i < 9 else None, 10 * i, 0, "", "")
        for i in range(10)
    ]
    made = {
        "model": "net",
        "attack": "PGD(steps=40)",
        "threat": Lp(Norm.LINF, 8 / 255),
        "data": "digits",
        "goal": "untargeted",
        "seed": 3,
        "seconds": 1.26,
        "records": tuple(records),
        "adversarials": torch.zeros(10, 1, 2, 2),
        "evidence": Evidence(n=10, classes=3, correct=9),
    }
    return Outcome(**(made | changes))


def test_an_outcome_shows_its_figures_and_where_they_come_from():
    shown = Shown(outcome())
    assert shown.texts == ["net on digits, 10 samples, linf 8/255, seed 3", "PGD(steps=40)"]
    assert shown.rows == [
        ["", "", "95 % CI", ""],
        ["clean accuracy", "90.0 %", "59.6-98.2", ""],
        ["robust accuracy", "40.0 %", "16.8-68.7", ""],
        ["trust", "mean size", "median size", "queries a sample", "seconds"],
        ["ok", "0.0200", "0.0200", "40.0", "1.3"],
    ]
    assert shown.bars == [
        "90.0 %, 95 % interval 59.6-98.2",
        "40.0 %, 95 % interval 16.8-68.7",
    ]


def test_the_bar_stands_where_the_figures_are():
    band, tick = re.findall(
        r"left:(?:calc\()?([\d.]+)%(?:;width:([\d.]+)%)?", outcome()._repr_html_()
    )[-2:]
    assert band == ("16.82", "51.91")
    assert tick == ("40.00", "")


def test_an_outcome_tells_what_was_not_usual_and_every_doubt():
    threat = Lp(Norm.L2, 0.5, Access.SCORES, queries=500)
    doubts = (warn("the first"), warn("the second"))
    unusual = outcome(threat=threat, goal="targeted next", precision=Precision.BF16, doubts=doubts)
    title, first, second, attack = Shown(unusual).texts
    assert title == (
        "net on digits, 10 samples, l2 0.5, scores only, 500 queries at most, targeted next, "
        f"seed 3, {Precision.BF16}"
    )
    assert (first, second) == ("warn: the first", "warn: the second")
    assert attack == "PGD(steps=40)"
    assert Shown(unusual).rows[-1][0] == "warn"


def test_an_outcome_without_an_example_has_dashes():
    unbroken = tuple(Record(f"s{i}", 0, True, True, None, 7, 0, "", "") for i in range(4))
    assert Shown(outcome(records=unbroken)).rows[-1] == ["ok", "-", "-", "7.0", "1.3"]


def score(name, robust, *, health=None, known=10):
    flags = np.arange(10)
    return Score(
        trial={"name": name, "attack": "a", "threat": "linf 0.1", "minimal": False, "steps": 40}
        | {"values": {"norm": "linf", "eps": 0.1}},
        known=flags < known,
        correct=flags < 9,
        robust=flags < robust,
        size=np.where((flags >= robust) & (flags < 9), 0.05, np.inf),
        queries=np.full(10, 20),
        reached=np.full(10, -1),
        label=flags % 3,
        errors=np.full(10, np.nan),
        evidence=Evidence(n=10, classes=3, correct=9, health=health),
        seconds=0.55,
    )


def board(*rows, trials=1):
    told = [{"name": f"trial {t}", "threat": "linf 0.1"} for t in range(trials)]
    ids = tuple(map(str, range(10)))
    return Board("mine", "", "digits", 0, "float32", (), ids, tuple(told), rows)


def row(model, *robust, rank, **changes):
    scores = tuple(score(f"trial {t}", n, **changes) for t, n in enumerate(robust))
    return Row(model, "d", {}, scores, rank)


def test_a_board_shows_a_row_a_model_with_the_worst_case_and_each_trial():
    shown = Shown(board(row("a", 7, 5, rank=1), row("b", 4, 4, rank=2), trials=2))
    assert shown.texts == ["mine on digits, 10 samples, linf 0.1, seed 0"]
    assert shown.rows == [
        [
            *("rank", "model", "clean %", "robust %", "95 % CI", "", "trial 0 %", "trial 1 %"),
            *("trust", "mean size", "queries", "seconds"),
        ],
        ["1", "a", "90.0", "50.0", "23.7-76.3", "", "70.0", "50.0", "ok", "-", "40.0", "1.1"],
        ["2", "b", "90.0", "40.0", "16.8-68.7", "", "40.0", "40.0", "ok", "-", "40.0", "1.1"],
    ]
    assert shown.bars[0] == "50.0 %, 95 % interval 23.7-76.3"


def test_a_board_tells_ties_gaps_and_whose_doubts():
    hidden = Health(agreement=0.7, flat=0.0, images=8)
    shown = Shown(
        board(
            row("a", 5, rank=1, health=hidden),
            row("b", 4, rank=1, health=hidden),
            row("c", 3, rank=None, known=8),
        )
    )
    assert [cells[0] for cells in shown.rows] == ["rank", "1=", "1=", "-"]
    assert "trial 0 %" not in shown.rows[0]
    assert shown.texts[1:] == [
        "= : an exact McNemar test, Holm-corrected, cannot tell models of one rank apart",
        "c: 2 samples have no result yet",
        "warn: a, b: gradients foretell differences of the margin with cosine 0.70 only: add an "
        "attack without gradients, such as square",
    ]


def test_a_suite_shows_its_trials_by_data():
    shown = Shown(load_suite("blackbox"))
    assert shown.texts[0].startswith("blackbox: Linf by 1,000 queries a sample")
    assert shown.texts[1] == "1000 samples of the data of each model, seed 0, 250 a unit of work"
    head, *rows = shown.rows
    assert head == ["data", "trial", "attack", "threat"]
    assert rows[0][1:] == [
        "square",
        "Square(steps=1000, p_init=0.8, horizon=None, at_once=1, patience=inf)",
        "linf 8/255, scores only, 1000 queries at most",
    ]
    assert rows[1][::3] == ["", "linf 8/255, decisions only, 1000 queries at most"]
    assert any("digits*" in cells[0] for cells in rows)


def test_hostile_names_stay_text():
    attack = load_suite("smoke").trials_on("digits")[0].attack
    suite = Suite(HOSTILE, {BREAKOUT: (Trial(HOSTILE, attack, Lp(Norm.LINF, 0.1)),)}, BREAKOUT)
    values = {
        "outcome": outcome(
            model=HOSTILE, data=BREAKOUT, attack=HOSTILE, doubts=(warn(BREAKOUT),), goal=HOSTILE
        ),
        "board": board(row(HOSTILE, 4, rank=None, known=3), row(BREAKOUT, 4, rank=1)),
        "suite": suite,
    }
    for name, value in values.items():
        shown = Shown(value)  # no element but those allowed
        told = "\n".join([*shown.texts, *(cell for cells in shown.rows for cell in cells)])
        assert HOSTILE in told, name
        assert BREAKOUT in told, name


def test_there_is_no_colour_of_its_own_no_script_and_nothing_to_load():
    for value in (outcome(doubts=(warn("w"),)), board(row("a", 4, rank=1)), load_suite("linf")):
        shown = Shown(value)
        for style in shown.styles:
            assert not re.search(
                r"#[0-9a-f]{3}|rgb|hsl|url|(?<!background:current)color:", style, re.I
            )
            assert "background" not in style or "background:currentColor" in style


def test_the_package_is_imported_only_when_something_is_shown():
    code = (
        "import sys; from robustbench_lite import leaderboard, results, suite;"
        "print([m for m in sys.modules if 'displays' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
