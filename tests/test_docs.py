"""The site is built without a warning, tells all that there is, and its commands do as it says."""

import ast
import dataclasses
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from enum import Enum
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver

import robustbench_lite
from robustbench_lite import doubts
from robustbench_lite.model_specs import is_source
from robustbench_lite.registry import Kind, registered

SITE = Path(__file__).parent.parent / "docs" / "site"
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run"


def transcripts():
    spec = importlib.util.spec_from_file_location("transcripts", SITE / "transcripts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    # Without a network: whatever asks a proxy for something fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [*command, "-d", folder / "doctrees", SITE, folder / "html"],
        capture_output=True,
        text=True,
        env=os.environ | nowhere | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


class Page(HTMLParser):
    """The ids of a page, its links, what it loads, and its text."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded, self.words = set(), [], [], []
        self.feed(path.read_text("utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(found["href"])

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_afar(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            target = urlsplit(link)
            if target.scheme in ("https", "mailto"):
                assert link not in page.loaded
                continue
            assert not target.scheme, link
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            known = not target.fragment or file not in pages or target.fragment in pages[file].ids
            if not file.is_file() or not known:
                broken.append((path.name, link))
    assert not broken


@pytest.mark.parametrize(
    ("page", "prefix", "kind"),
    [
        ("attacks", "attack", Kind.ATTACKS),
        ("defenses", "defense", Kind.DEFENSES),
        ("threats", "threat", Kind.THREATS),
        ("suites", "suite", Kind.SUITES),
        ("data", "data", Kind.DATA),
    ],
)
def test_everything_that_is_registered_has_its_section(site, pages, page, prefix, kind):
    ids = pages[site / f"{page}.html"].ids
    assert [
        name for name in registered(kind) if f"{prefix}-{name.replace('_', '-')}" not in ids
    ] == []


def test_every_model_has_its_section(site, pages):
    zoo, sources = (pages[site / f"{name}.html"].ids for name in ("zoo", "models"))
    for name in registered(Kind.MODELS):
        if is_source(name):
            assert f"source-{name.replace('_', '-')}" in sources
        else:
            assert f"zoo-{name}" in zoo


def test_the_sources_that_are_advised_are_registered():
    text = "".join((SITE / f"{name}.md").read_text("utf-8") for name in ("models", "data"))
    advised = re.findall(r'--(model|data) "?([a-z]+):', text)
    assert len(advised) == 16
    kinds = {"model": Kind.MODELS, "data": Kind.DATA}
    assert [name for kind, name in advised if name not in registered(kinds[kind])] == []


def test_an_attack_is_told_with_paper_needs_and_defaults(site):
    html = (site / "attacks.html").read_text("utf-8")
    section = re.search(r'<section id="attack-pgd">.*?</section>', html, re.S)[0]
    text = " ".join(unescape(re.sub("<[^>]+>", " ", section)).split())
    assert "https://arxiv.org/abs/1706.06083" in section
    for told in (
        "Madry et al. 2018",
        "Needs: gradients",
        "Threats: l1 , l2 , linf",
        "Minimal: no",
        "step_size 0.1 length of one move, in units of eps.",
        "random_start True",
    ):
        assert told in text


def parameters(thing):
    """What the user gives to make or call it; an attack is given oracles and numbers."""
    made = (Enum, Exception, robustbench_lite.Oracle, robustbench_lite.Rng)
    if inspect.isclass(thing) and (issubclass(thing, made) or Protocol in thing.__bases__):
        return []
    own = dataclasses.is_dataclass(thing) or inspect.isfunction(vars(thing).get("__init__"))
    return list(inspect.signature(thing).parameters) if own or inspect.isfunction(thing) else []


def test_every_public_name_is_documented_with_its_parameters(pages):
    ids = set().union(*(page.ids for page in pages.values()))
    for name in robustbench_lite.__all__:
        thing = getattr(robustbench_lite, name)
        assert f"{thing.__module__}.{name}" in ids, name
        text = inspect.getdoc(thing)
        assert text, name
        assert [p for p in parameters(thing) if f"    {p}: " not in text] == [], name
        if inspect.isfunction(thing):
            assert "Returns:\n" in text or text.startswith("The "), name


def fixed_words(call):
    """The longest part of a message that is the same in every run."""
    parts = [p.value for p in ast.walk(call) if isinstance(p, ast.Constant)]
    return max((p for p in parts if isinstance(p, str)), key=len, default="").strip(" :")


def test_every_doubt_is_explained(site, pages):
    tree = ast.parse(Path(doubts.__file__).read_text("utf-8"))
    texts = [fixed_words(p) for p in ast.walk(tree) if isinstance(p, ast.JoinedStr | ast.Constant)]
    sentences = {text for text in texts if len(text.split()) > 4 and text[0].islower()}
    assert len(sentences) > 12
    told = pages[site / "trust.html"].text
    assert [sentence for sentence in sentences if sentence not in told] == []


def test_the_commands_of_the_pages_print_what_the_pages_say(forked_rbl, tmp_path):
    replay = transcripts()

    def run(command, folder):
        program, *arguments = shlex.split(command)
        if program == "rbl":
            done = forked_rbl(*arguments, cwd=folder, OMP_NUM_THREADS="1")
        else:
            assert program == "python"
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=True,
            )
        return done.stdout, done.returncode

    for name in replay.PAGES:
        folder = tmp_path / name
        folder.mkdir()
        page = (SITE / name).read_text("utf-8")
        assert page.count("```console") > 0
        told = replay.retold(page, folder, run)
        assert replay.without_seconds(told) == replay.without_seconds(page)


def test_a_changed_figure_is_seen_and_a_changed_time_is_not():
    replay = transcripts()
    page = "```console\n$ rbl\nattack  robust %  seconds\npgd         10.0      0.1\n```\n"
    assert replay.without_seconds(page) == replay.without_seconds(page.replace("0.1\n", "12.5\n"))
    assert replay.without_seconds(page) != replay.without_seconds(page.replace("10.0", "10.5"))
    told = replay.retold(page, Path(), lambda command, folder: (command.upper(), 0))
    assert told == "```console\n$ rbl\nRBL\n```\n"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_need_not_scroll_sideways(site, pages, tmp_path, scheme):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        phone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        wish = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
        for path in pages:
            browser.get(path.as_uri())
            parts = "return [...document.querySelectorAll('html, body, .content')]"
            wide = browser.execute_script(f"{parts}.map(part => part.scrollWidth)")
            assert set(wide) == {375}, path.name
    finally:
        browser.quit()
