import contextlib
import re
import string
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustbench_lite import InputError, Split
from robustbench_lite.classifier import Classifier
from robustbench_lite.cli import _run
from robustbench_lite.data import Dataset
from robustbench_lite.model_specs import parts_of, source_of, with_settings
from robustbench_lite.models import load_model
from robustbench_lite.registry import Kind, load_data, open_data, registered, settings_of

BASES = [
    ("timm:resnet18", "?"),
    ("timm:resnet18.a1_in1k?num_classes=10", "?"),
    ("torchvision:resnet18@DEFAULT?", "?"),
    ("onnx:a+b/net.onnx", "?"),
    ("net.py:make?depth=3&act=re%2Blu", "?"),
    ("folder/net.py:Net.small", "?"),
    ("package.module:factory", "?"),
    ("http://127.0.0.1:8000/v1/predict?a=1&b=x+y", "#"),
    ("https://example.org/p+q?z#protocol=v2", "#"),
]
DEFENSES = ["jpeg", "jpeg?quality=50", "bit-depth?bits=4", "median-blur"]

anything = st.text(max_size=30)
values = st.dictionaries(
    st.sampled_from(["weights", "normalize", "resize", "trust_remote_code"]), anything, min_size=1
)
defenses = st.lists(st.sampled_from(DEFENSES), max_size=3)


@given(base=st.sampled_from(BASES), values=values, behind=defenses)
@settings(deadline=None)
def test_settings_come_back_whatever_is_in_them(base, values, behind):
    spec, mark = base
    told = settings_of("model", source_of(spec)[1], mark)
    made = with_settings("+".join([spec, *behind]), values)
    undefended, found = parts_of(made)
    assert found == behind
    source, argument, found_mark = source_of(undefended)
    assert (source, found_mark) == (source_of(spec)[0], mark)
    assert settings_of("model", argument, mark) == (told[0], told[1] | values)


def test_a_name_that_is_no_utf8_comes_back_too():
    name = b"w\xe9ights+1.pt".decode("utf-8", "surrogateescape")
    made = with_settings("timm:resnet18+jpeg", {"weights": name})
    undefended, behind = parts_of(made)
    assert behind == ["jpeg"]
    assert settings_of("model", source_of(undefended)[1])[1] == {"weights": name}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("digits-cnn", ("digits-cnn", [])),
        ("digits-cnn+jpeg?quality=50+bit-depth", ("digits-cnn", ["jpeg?quality=50", "bit-depth"])),
        ("digits-cnn+anything", ("digits-cnn", ["anything"])),
        ("digits-cnn+", ("digits-cnn", [""])),
        ("a+b.safetensors", ("a+b.safetensors", [])),
        ("a+b.safetensors+jpeg", ("a+b.safetensors", ["jpeg"])),
        ("http://h/a+b?x=1&y=2+3", ("http://h/a+b?x=1&y=2+3", [])),
        ("http://h/a?x=1#key=v+jpeg+jpeg", ("http://h/a?x=1#key=v", ["jpeg", "jpeg"])),
        ("net.py:make?a=1+2", ("net.py:make?a=1+2", [])),
        ("+jpeg", ("", ["jpeg"])),
        ("jpeg", ("jpeg", [])),
    ],
)
def test_where_a_model_ends_and_its_defenses_begin(spec, parts):
    assert parts_of(spec) == parts


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a+jpeg", "b:c+jpeg"):
        Path(name).touch()
        assert parts_of(name) == (name, [])
        assert parts_of(f"{name}+bit-depth") == (name, ["bit-depth"])
    assert source_of("b:c+jpeg") == (None, "", "")


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ("digits-cnn", (None, "", "")),
        ("a/b.safetensors", (None, "", "")),
        ("timm:a:b?c=d", ("timm", "a:b?c=d", "?")),
        ("timm", ("timm", "", "?")),
        ("net.py:make?x=1", ("python", "net.py:make?x=1", "?")),
        ("a.b:c", ("python", "a.b:c", "?")),
        ("http://h:1/p?q=1#r=2", ("http", "http://h:1/p?q=1#r=2", "#")),
        ("https:", ("http", "https:", "#")),
    ],
)
def test_where_a_model_comes_from(spec, source):
    assert source_of(spec) == source


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("tim:resnet18", "no source of models is called 'tim'; did you mean timm"),
        ("1.b:c", "no source of models is called '1.b'"),
        ("digits-cnn:x", "no source of models is called 'digits-cnn'"),
        (":", "no source of models is called ''"),
    ],
)
def test_a_source_that_does_not_exist(spec, part):
    with pytest.raises(InputError, match=re.escape(part)):
        source_of(spec)


@pytest.mark.parametrize("text", ["a?b", "a?=", "a?=1", "a?b=1&b=2", "a?b=1&c", "a?b=1&b=1"])
def test_settings_that_are_none(text):
    with pytest.raises(InputError, match="write it as a\\?key=value&other=value"):
        settings_of("model", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", ("a", {})),
        ("a?", ("a", {})),
        ("a?&&", ("a", {})),
        ("a?b=", ("a", {"b": ""})),
        ("a?b=c=d?e", ("a", {"b": "c=d?e"})),
        ("a?b=%26%2b+%zz%", ("a", {"b": "&++%zz%"})),
        ("?b=1", ("", {"b": "1"})),
    ],
)
def test_settings_that_are_some(text, found):
    assert settings_of("model", text) == found


def test_a_setting_is_given_once():
    with pytest.raises(InputError, match="has weights=a b already; give it once"):
        with_settings("timm:resnet18?weights=a%20b", {"weights": "c"})
    with pytest.raises(InputError, match=r"model 'digits-cnn' comes with all that it needs; we"):
        with_settings("digits-cnn+jpeg", {"weights": "c"})


# Sources that would ask the network are left out.
WORDS = [
    *("digits-cnn", "digits", "python", "onnx", "keras", "sklearn", "torchscript", "exported"),
    *("clip", "npz", "csv", "parquet", "folder", "imagenet-lite0", "jpeg", "bit-depth", "pgd-at"),
    *("net.py:make", "a.b:c", "w.pt", "w.safetensors", "w.toml", "x.npz", "os.path", "/dev/null"),
    *("quality=50", "bits=0", "weights=", "num_classes=2", "resize=-1", "normalize=1,2/3"),
    *(":", "::", "?", "&", "=", "+", "#", "%", "%00", "%ff", "/", "..", "~", "~nobody", "*", "["),
    *(
        "",
        " ",
        "\n",
        "\0",
        "\ud800",
        "\udcff",
        "\u00b2",
        "\U0001f986",
        "-",
        "--",
        "a" * 300,
        "nan",
        "1e999",
    ),
]
letters = st.text(st.characters(codec="utf-8"), max_size=4)
specs = st.lists(st.sampled_from(WORDS) | letters, max_size=6).map("".join)
quiet = settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pt").write_bytes(b"\x80\x04.")
    Path("w.safetensors").write_bytes(b"\x80\x04.")
    Path("w.toml").write_text("name = 1\n")
    Path("x.npz").write_bytes(b"PK\3\4")


@quiet
@given(spec=specs, values=values)
def test_no_spec_is_more_than_refused(elsewhere, spec, values):
    base, behind = parts_of(spec)
    assert "+".join([base, *behind]) == spec
    assert base in registered(Kind.MODELS) or all(
        text.partition("?")[0] in registered(Kind.DEFENSES) for text in behind
    )
    for read in (source_of, lambda text: settings_of("model", text)):
        with contextlib.suppress(InputError):
            read(spec)
    with contextlib.suppress(InputError):
        made = with_settings(spec, values)
        assert parts_of(made)[1] == behind


@quiet
@given(spec=specs)
def test_no_model_is_more_than_refused(elsewhere, spec):
    with contextlib.suppress(InputError):
        assert isinstance(load_model(spec), Classifier)


@quiet
@given(spec=specs, split=st.sampled_from(Split))
def test_no_data_are_more_than_refused(elsewhere, spec, split):
    with contextlib.suppress(InputError):
        open_data(spec, split)
        assert isinstance(load_data(spec, split), Dataset)


COMMANDS = ["attack", "certify", "explain", "convert", "check", "list", "show", "plot", "compare"]
OPTIONS = ["-m", "-d", "-a", "--eps", "--n", "--out", "--set", "--weights", "--indices", "--key"]
arguments = st.lists(specs | st.sampled_from(OPTIONS) | st.text(string.printable), max_size=5)


@settings(quiet, max_examples=60)
@given(command=st.sampled_from(COMMANDS), rest=arguments)
def test_no_command_line_is_more_than_refused(elsewhere, command, rest):
    with contextlib.ExitStack() as stack:
        out, err = (
            stack.enter_context(Path(name).open("w+", errors="backslashreplace"))
            for name in ("out", "err")
        )
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.callback(setattr, sys, "argv", sys.argv)
        sys.argv = ["rbl", command, *rest, "--n", "2"]
        code = _run()
        err.seek(0)
        lines = err.read()
    assert code == 0 or (code == 2 and re.fullmatch(r"rbl: .+\n", lines))
