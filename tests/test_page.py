import base64
import csv
import io
import json
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from robustbench_lite.page import page
from robustbench_lite.page.charts import class_chart, confusion_chart, curve_chart, queries_chart
from robustbench_lite.page.gallery import gallery_image
from robustbench_lite.page.report import (
    Attacked,
    Board,
    Class,
    Curve,
    Entry,
    Example,
    Push,
    Queried,
    Report,
    Trial,
    plain,
)
from robustbench_lite.page.theme import HUES
from robustbench_lite.stats import wilson
from robustbench_lite.trust import Trust

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
HOSTILE = "<img src=x onerror=alert(1)>"
BREAKOUT = "</script><script>alert(2)</script><!-- {{bundle}} & \u2028"
CLASSES = ("cat", "dog", "owl")
NOISE = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def png(levels):
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def entry(number, *, attacks=2, points=9, classes=3, **fields):
    eps = [0.01 * point for point in range(points)]
    shares = [0.9 - 0.001 * number - 0.3 * point / points for point in range(points)]
    names = [f"attack-{attack}" for attack in range(attacks)]
    made = {
        "rank": number + 1,
        "model": f"net-{number}",
        "parameters": 10**number if number < 5 else number,
        "clean": 0.9,
        "clean_ci": (0.85, 0.94),
        "robust": 0.6 - 0.01 * number,
        "robust_ci": (0.5, 0.7),
        "attacks": {name: Attacked(0.6, (0.5, 0.7), 0.02, 40.0) for name in names},
        "queries": 100.0,
        "curve": Curve(eps, shares, [s - 0.05 for s in shares], [s + 0.05 for s in shares]),
        "by_queries": Queried([1, 10, 100], [0.9, 0.7, 0.6]),
        "by_class": [Class(label, 40, 0.9, 0.5) for label in range(classes)],
        "confusion": [Push(a, b, 1 + a) for a in range(classes) for b in range(classes) if a != b],
    }
    return Entry(**(made | fields))


def report(entries, *, classes=CLASSES, gallery=(), more=()):
    trials = [Trial(name, "pgd(steps=40)", "linf 0.03") for name in entries[0].attacks]
    board = Board("linf", "digits", 200, 7, trials, entries, classes, gallery)
    return Report("Leaderboard", "2025-11-02", "rbl x", {"torch": "2.10"}, [board, *more])


SIX = [
    entry(0, mce=0.5),
    entry(1, rank=1, trust=Trust.WARN, doubts=["gradients are zero"]),
    entry(2, mce=0.25),
    entry(3, trust=Trust.FAIL, missing=4),
    entry(4, model=HOSTILE),
    entry(5, card={"license": "MIT", "data": {"name": "digits"}}),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """`show(report, width, scheme)` opens its page and waits for the charts."""

    def opened(shown, width=1280, scheme="light"):
        file = tmp_path / "board.html"
        file.write_text(page(shown), encoding="utf-8")
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        media = [{"name": name, "value": value} for name, value in wishes.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(file.as_uri())
        drawn(browser)
        return browser

    return opened


def drawn(browser):
    done = "return document.documentElement.dataset.charts === 'drawn'"
    WebDriverWait(browser, 20, 0.05).until(lambda b: b.execute_script(done))


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser, selector):
    """The element, which may come a moment after what called for it: some events are queued."""
    found = WebDriverWait(browser, 20, 0.05)
    return found.until(lambda b: b.find_element(By.CSS_SELECTOR, selector))


def models(browser):
    return [link.text for link in all_of(browser, "#rows tbody th a")]


def header(browser, key):
    return one(browser, f"#rows th[data-key='{key}']")


def lines(browser, chart="curve"):
    return len(all_of(browser, f"#{chart} .mark-line path[d]"))


def tick(browser, model):
    boxes = all_of(browser, "#rows tbody input")
    next(box for box in boxes if box.get_attribute("value") == model).click()
    drawn(browser)


def test_a_click_sorts_by_number_and_a_second_turns_it_round(show):
    browser = show(report(SIX))
    assert header(browser, "rank").get_attribute("aria-sort") == "ascending"
    weights = header(browser, "parameters")
    for order, expected in (("descending", [4, 3, 2, 1, 5, 0]), ("ascending", [0, 5, 1, 2, 3, 4])):
        weights.find_element(By.TAG_NAME, "button").click()
        assert models(browser) == [SIX[number].model for number in expected]
        assert weights.get_attribute("aria-sort") == order
        assert len(all_of(browser, "#rows [aria-sort]")) == 1
    header(browser, "model").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert models(browser) == sorted(e.model for e in SIX)


def test_what_was_not_measured_stands_last_either_way_and_empty_columns_are_left_out(show):
    browser = show(report(SIX))
    button = header(browser, "mce").find_element(By.TAG_NAME, "button")
    for expected in (["net-2", "net-0"], ["net-0", "net-2"]):
        button.click()
        assert models(browser)[:2] == expected
    assert not all_of(browser, "#rows th[data-key='auc']")


def test_filters_leave_the_rows_that_match(show):
    browser = show(report(SIX))
    one(browser, "#model").send_keys("NET-1")
    assert models(browser) == ["net-1"]
    assert one(browser, "#count").text == "1 of 6 models"
    for _ in "NET-1":
        one(browser, "#model").send_keys(Keys.BACKSPACE)
    for least, out in (("ok", {"net-1", "net-3"}), ("warn", {"net-3"}), ("fail", set())):
        Select(one(browser, "#trust")).select_by_value(least)
        assert set(models(browser)) == {e.model for e in SIX} - out


def test_ties_intervals_and_doubts_are_told(show):
    browser = show(report(SIX))
    ranks = [
        row.find_elements(By.TAG_NAME, "td")[1].text for row in all_of(browser, "tbody tr")[:3]
    ]
    assert ranks == ["1=", "1=", "3"]
    shares = all_of(browser, "#rows tbody tr:first-child .range")
    assert {"50.0\u201370.0", "85.0\u201394.0"} == {share.text for share in shares[:2]}
    doubts = all_of(browser, "#rows details")
    told = []
    for doubt in doubts:
        assert not doubt.find_element(By.TAG_NAME, "ul").is_displayed()
        doubt.find_element(By.TAG_NAME, "summary").click()
        told.append(doubt.find_element(By.TAG_NAME, "ul").text)
    assert told == ["gradients are zero", "4 of 200 samples have no result"]


def test_the_models_that_are_ticked_are_drawn(show):
    browser = show(report([entry(number) for number in range(10)]))
    assert lines(browser) == lines(browser, "queries") == 5
    assert len(all_of(browser, "#curve .mark-area path[d]")) == 5
    tick(browser, "net-9")
    assert lines(browser) == lines(browser, "queries") == 6
    assert len(all_of(browser, "#classes .mark-symbol.role-mark path")) == 6 * len(CLASSES)
    tick(browser, "net-0")
    strokes = {p.get_attribute("stroke") for p in all_of(browser, "#curve .mark-line path[d]")}
    # The others keep their hues, and net-9 keeps the sixth.
    assert strokes == set(HUES["light"][1:6])
    for model in ("net-0", "net-5", "net-6"):
        tick(browser, model)
    free = [box for box in all_of(browser, "#rows tbody input") if not box.is_enabled()]
    assert lines(browser) == 8
    assert [box.get_attribute("value") for box in free] == ["net-7", "net-8"]


def test_the_heat_map_shows_one_model(show):
    few = [Push(0, 2, 5)]
    browser = show(report([entry(0), entry(1, confusion=few), entry(2, confusion=[])]))
    assert len(all_of(browser, "#confusion .role-mark.mark-rect path")) == 6
    chosen = Select(one(browser, "#pushed"))
    assert [option.text for option in chosen.options] == ["net-0", "net-1"]
    chosen.select_by_visible_text("net-1")
    drawn(browser)
    (cell,) = all_of(browser, "#confusion .role-mark.mark-rect path")
    assert "class reached: owl; true class: cat; samples: 5" in cell.get_attribute("aria-label")


def test_charts_without_data_are_left_out_and_none_chosen_says_so(show):
    bare = {"curve": None, "by_queries": None, "by_class": (), "confusion": ()}
    browser = show(report([entry(0, **bare)]))
    assert not any(figure.is_displayed() for figure in all_of(browser, ".charts figure"))
    browser = show(report([entry(0)]))
    tick(browser, "net-0")
    assert "tick a model" in one(browser, "#curve .chart").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_and_the_console_stays_empty(show, scheme):
    example = Example(HOSTILE, "attack-0", "t-1", 0, 1, 0.03, png(NOISE[0]), png(NOISE[1]))
    browser = show(report(SIX, gallery=[example]), scheme=scheme)
    tick(browser, "net-5")
    for control in ("#each", "#rows thead button", "#models summary"):
        one(browser, control).click()
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if "requestWillBeSent" in e["method"]]
    loaded = [url for url in sent if not url.startswith(("data:", "blob:"))]
    assert [url.rpartition("/")[2] for url in set(loaded)] == ["board.html"]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_texts_are_texts(show):
    hostile = entry(0, model=HOSTILE, summary=BREAKOUT, doubts=[HOSTILE], card={HOSTILE: BREAKOUT})
    shown = replace(report([hostile], classes=[BREAKOUT] * 3), title=BREAKOUT, command=HOSTILE)
    browser = show(shown)
    assert browser.title.startswith("</script><script>alert(2)</script><!-- {{bundle}} &")
    assert models(browser) == [HOSTILE]
    one(browser, "#models summary").click()
    assert HOSTILE in one(browser, "#models dl").text
    assert not all_of(browser, "img")
    assert browser.get_log("browser") == []
    data = browser.execute_script("return document.getElementById('data').textContent")
    assert json.loads(data) == json.loads(shown.to_json())


def test_dark_mode_reaches_page_and_charts(show):
    seen = {}
    for scheme in HUES:
        browser = show(report(SIX), scheme=scheme)
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        fill = one(browser, "#curve .role-axis-title text").get_attribute("fill")
        stroke = one(browser, "#curve .mark-line path[d]").get_attribute("stroke")
        seen[scheme] = (paper, fill, stroke)
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))
    assert seen["dark"][2] == HUES["dark"][0]
    assert max(map(int, re.findall(r"\d+", seen["dark"][0]))) < 64


def test_a_phone_scrolls_the_table_not_the_page(show):
    long = entry(6, model="m" * 90, card={"source": "https://example.org/" + "x" * 200})
    browser = show(report([*SIX, long]), width=375)
    tick(browser, "m" * 90)
    one(browser, "#models > details:last-child summary").click()
    width = "return [document.documentElement.scrollWidth, innerWidth, document.body.scrollWidth]"
    assert set(browser.execute_script(width)) == {375}
    table = "const t = document.getElementById('table'); return t.scrollWidth > t.clientWidth"
    assert browser.execute_script(table)


def test_boards_are_switched(show):
    other = Board("l2", "mnist", 50, 3, [Trial("cw", "cw", "l2")], [entry(3)], CLASSES)
    browser = show(report(SIX, more=[other]))
    Select(one(browser, "#board")).select_by_visible_text("l2 on mnist")
    drawn(browser)
    assert models(browser) == ["net-3"]
    assert one(browser, "#about").text == "l2 on mnist: 50 samples, seed 3."
    assert lines(browser) == 1
    assert not one(show(report(SIX)), "#boards").is_displayed()


def test_downloads_hold_the_figures(show, tmp_path):
    shown = report([entry(0, model='=1+"1",2'), entry(1, doubts=["a", "b"])])
    browser = show(shown)
    for name in ("csv", "json"):
        one(browser, f"#{name}").click()
        until = time.monotonic() + 10
        while not (tmp_path / f"leaderboard.{name}").exists() and time.monotonic() < until:
            time.sleep(0.05)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open(newline="")))
    assert [row["model"] for row in rows] == ['\'=1+"1",2', "net-1"]
    assert float(rows[1]["robust"]) == 0.59
    assert rows[1]["attack-0 low"] == "0.5"
    assert rows[1]["doubts"] == "a; b"
    assert json.loads((tmp_path / "leaderboard.json").read_text()) == json.loads(shown.to_json())


def test_the_gallery_magnifies_the_perturbation_around_grey(show):
    grey = np.full((8, 8, 3), 100, np.uint8)
    changed = grey.copy()
    changed[0, 0] = (110, 90, 100)
    examples = [
        Example("net-0", "a", f"t-{number}", 0, 2, 0.04, png(grey), png(changed))
        for number in range(14)
    ]
    browser = show(report(SIX, gallery=examples))
    assert len(all_of(browser, "#gallery figure")) == 12
    one(browser, "#more").click()
    assert len(all_of(browser, "#gallery figure")) == 14
    assert "cat \u2192 owl" in one(browser, "#gallery figcaption").text
    assert all(image.get_attribute("alt") for image in all_of(browser, "#gallery img"))
    WebDriverWait(browser, 10).until(
        lambda b: "12.7 times" in one(b, "#gallery canvas").get_attribute("aria-label")
    )
    look = (
        "return [...document.querySelector('canvas').getContext('2d').getImageData(0,0,2,1).data]"
    )
    assert browser.execute_script(look) == [255, 1, 128, 255, 128, 128, 128, 255]


def test_each_attack_and_each_card_is_told_when_asked_for(show):
    weak = {f"attack-{n}": Attacked(0.25, (0.125, 0.5), None, 7.0, Trust.WARN) for n in range(4)}
    browser = show(report([entry(0, attacks=4), replace(entry(5), attacks=weak)]))
    assert "attack-3 %" not in one(browser, "#rows thead").text
    one(browser, "#each").click()
    assert "attack-3 %" in one(browser, "#rows thead").text
    one(browser, "#rows tbody tr:nth-child(2) th a").click()
    told = one(browser, "#card-1 table tbody tr").text
    assert told.split() == ["attack-0", "25.0", "12.5\u201350.0", "\u2013", "7", "warn"]


@pytest.mark.parametrize("boards", [0, 1])
def test_an_empty_report_is_a_page(show, boards):
    empty = Board("linf", "digits", 1, 0, [], [], [])
    browser = show(replace(report(SIX), boards=[empty] * boards))
    assert models(browser) == []
    assert browser.get_log("browser") == []


def test_landmarks_and_names_for_those_who_do_not_see(show):
    browser = show(report(SIX))
    assert one(browser, "html").get_attribute("lang") == "en"
    assert len(all_of(browser, "main")) == len(all_of(browser, "h1")) == 1
    controls = all_of(browser, "select, input, button")
    assert all(control.accessible_name for control in controls if control.is_displayed())
    charts = all_of(browser, ".charts .chart")
    assert len(charts) == 4
    assert all(len(chart.get_attribute("aria-label")) > 20 for chart in charts)


def contrast(one, other):
    def light(colour):
        long = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        levels = np.array([int(long[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(show, scheme):
    browser = show(report(SIX), scheme=scheme)
    read = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"

    def colour(name):
        return browser.execute_script(read, f"--{name}")

    for ink, paper in [(i, p) for i in ("ink", "pale", "link") for p in ("paper", "raised")]:
        assert contrast(colour(ink), colour(paper)) >= 4.5, (ink, paper)
    for trust in Trust:
        assert contrast(colour(trust), colour(f"{trust}-back")) >= 4.5
    assert all(contrast(hue, colour("paper")) >= 4.5 for hue in HUES[scheme])


def test_a_large_board_stays_small(show):
    entries = [entry(n, attacks=10, points=60, classes=10) for n in range(50)]
    pictures = [
        png(np.random.default_rng(n).integers(0, 256, (32, 32, 3), np.uint8)) for n in (1, 2)
    ]
    gallery = [Example("net-0", "a", str(n), 0, 1, 0.1, *pictures) for n in range(40)]
    shown = report(entries, classes=[str(n) for n in range(10)], gallery=gallery)
    assert len(page(shown).encode()) < 3_000_000
    assert len(models(show(shown))) == 50


def test_a_report_that_is_no_json_or_has_ragged_columns_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        page(report([entry(0, queries=float("nan"))]))
    with pytest.raises(ValueError, match="'low': 1"):
        Curve([0, 1], [1, 0], [1], [1, 0])
    assert plain(entry(0))["confusion"][0] == {"from": 0, "to": 1, "count": 1}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_charts_are_saved_as_pictures(tmp_path, ending):
    charts = {
        "curve": curve_chart(SIX),
        "queries": queries_chart(SIX),
        "classes": class_chart(SIX, [*CLASSES]),
        "confusion": confusion_chart(SIX[0], CLASSES),
    }
    for name, chart in charts.items():
        file = tmp_path / f"{name}.{ending}"
        chart.save(os.fspath(file))
        empty = {"png": 8_000, "svg": 4_000, "pdf": 4_000}
        assert file.stat().st_size > empty[ending], name


@pytest.mark.parametrize(("classes", "expected"), [(30, 30 * 29), (31, 60)])
def test_a_heat_map_of_many_classes_keeps_the_most_frequent_pushes(tmp_path, classes, expected):
    confusion_chart(entry(0, classes=classes), list(map(str, range(classes)))).save(
        os.fspath(tmp_path / "heat.svg")
    )
    drawn = (tmp_path / "heat.svg").read_text()
    assert drawn.count("samples: ") == expected
    assert f"samples: {classes}" in drawn  # the most frequent


@pytest.mark.parametrize("classes", [20, 25])
def test_of_many_classes_the_weakest_are_shown(tmp_path, classes):
    by_class = [Class(label, 40, 1, 1 - label / 40) for label in range(classes)]
    names = [f"class {label}." for label in range(classes)]
    class_chart([entry(0, by_class=by_class)], names).save(os.fspath(tmp_path / "classes.svg"))
    drawn = (tmp_path / "classes.svg").read_text()
    assert [name in drawn for name in names] == [label >= classes - 20 for label in range(classes)]


def test_the_interval_of_a_class_is_wilsons(tmp_path):
    chart = class_chart([entry(0, by_class=[Class(0, 40, 1, 0.25)])], CLASSES)
    chart.save(os.fspath(tmp_path / "classes.svg"))
    low, high = (f"{100 * end:.1f}%" for end in wilson(10, 40))
    assert f"95 % from: {low}; 95 % to: {high}" in (tmp_path / "classes.svg").read_text()


def test_a_gallery_is_one_picture():
    levels = [np.full((4, 4, 3), level, np.uint8) for level in (100, 120)]
    shown = Example("net", "pgd", "t", 0, 2, 0.1, *map(png, levels))
    picture = gallery_image([shown] * 4, CLASSES)
    assert picture.mode == "RGB"
    tiles = [picture.getpixel((20 + column * 102 + 48, 20 + 48)) for column in range(3)]
    assert tiles == [(100,) * 3, (255,) * 3, (120,) * 3]
    assert gallery_image([shown] * 3, CLASSES).height < picture.height
    with pytest.raises(ValueError, match="example"):
        gallery_image([])
