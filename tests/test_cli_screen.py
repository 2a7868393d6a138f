import os
import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from typer.testing import CliRunner

from robustbench_lite.cli.program import app


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_no_figure_is_cut_or_wrapped(forked_rbl, tmp_path, copied_model, columns):
    card = copied_model.with_suffix(".toml")
    name = "a-[bold]model[/bold]-with-a-name-of-:smile:-many-words"
    card.write_text(card.read_text().replace('"digits-cnn"', f'"{name}"'))
    model = copied_model.name
    alone = forked_rbl(
        "attack", "-m", model, "-a", "fgsm", "--n", 30, cwd=tmp_path, COLUMNS=columns
    )
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.startswith(f"{name} on digits, 30 samples, linf 0.15, seed 0\n")
    assert "\u2026" not in alone.stdout
    *_, header, row = alone.stdout.splitlines()
    titles = ["clean %", "robust %", "95 % CI", "trust", "mean size", "queries", "seconds"]
    assert re.split(r"\s{2,}", header.strip())[-7:] == titles
    figures = r"fgsm +\d+\.\d +\d+\.\d +\d+\.\d-\d+\.\d +ok +0\.150 +2\.\d +\d+\.\d"
    assert re.fullmatch(figures, row.strip())
    several = ("--models", f"{model},digits-cnn", "--attacks", "fgsm,pgd", "--n", 30)
    board = forked_rbl("bench", *several, cwd=tmp_path, COLUMNS=columns)
    assert board.returncode == 0, board.stderr
    assert "\u2026" not in board.stdout
    rows = [line for line in board.stdout.splitlines() if re.match(r" +[12][ =]  ", line)]
    assert len(rows) == 2
    for line in rows:
        assert re.search(r"( +\d+\.\d){2} +\d+\.\d-\d+\.\d( +\d+\.\d){0,2} +ok", line)


def names_of(kind: str) -> set[str]:
    return entry_points(group=f"robustbench_lite.{kind}").names


@pytest.mark.parametrize(
    "kind", ["models", "attacks", "defenses", "data", "architectures", "suites"]
)
def test_a_list_has_every_name_with_a_line(forked_rbl, tmp_path, kind):
    done = forked_rbl("list", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line[0] != " "]
    assert {name for name, _ in lines} == names_of(kind)
    assert all(len(text) > 10 for _, text in lines)


def test_a_model_without_files_does_not_hide_the_others(tmp_path):
    (tmp_path / "absent.py").write_text("import pathlib\nm = pathlib.Path('gone.safetensors')\n")
    info = tmp_path / "absent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[robustbench_lite.models]\nabsent = absent:m\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from robustbench_lite.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.argv = ['rbl', 'list', 'models']; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(re.match(r"absent +not installed: gone.safetensors is missing", x) for x in lines)
    assert any(re.match(r"digits-cnn +A small .* net on scikit-learn's", x) for x in lines)


def test_every_model_can_be_shown():
    for name in names_of("models"):
        shown = CliRunner().invoke(app, ["show", name])
        assert shown.exit_code == 0, shown.output
        assert shown.output.startswith(f"{name}  ")
        parts = ('summary = "', "[recipe]", "[measured]", "robust_ci95 = [")
        told = {n: (f"{n}:",) for n in SOURCES}
        told |= {"imagenet-lite0": ("imagenet20",), "python": ("file.py:factory",)}
        for part in told.get(name, parts):
            assert part in shown.output


@pytest.mark.parametrize("kind", ["attacks", "defenses", "data", "architectures"])
def test_everything_registered_can_be_shown(kind):
    for name in names_of(kind):
        shown = CliRunner().invoke(app, ["show", name])  # half a second a process is too much here
        assert shown.exit_code == 0, shown.output
        assert shown.output.startswith(f"{name}  ")
        expected = {
            "attacks": ATTACKS.get(
                name, ["Settings (--set KEY=VALUE)", "  steps = ", "Norms: ", ". Needs "]
            ),
            "defenses": [f"(--model MODEL+{name}?KEY=VALUE&...)"]
            if name in WRAPPING
            else ["Settings (--set KEY=VALUE)"],
            "data": [f"{name}  data: "],
            "architectures": [
                f"{name}(classes: int, channels: int",
                "cell: int = " if name.startswith("hog-") else "width: int = ",
            ],
        }[kind]
        for part in expected:
            assert part in shown.output
        assert "Args:" not in shown.output


def test_each_setting_stands_beside_what_it_does(forked_rbl, tmp_path):
    shown = forked_rbl("show", "spatial", cwd=tmp_path, COLUMNS="80").stdout.splitlines()
    (at,) = [i for i, line in enumerate(shown) if line.startswith("  steps = 775  ")]
    assert "queries at the most" in shown[at]
    assert shown[at + 1].startswith(" " * shown[at].index("queries"))
    assert max(map(len, shown[at : at + 6])) <= 80
    raises = shown.index("Raises:")
    assert shown[raises - 1] == ""


LIBRARIES = ("torchattacks", "foolbox", "art", "advlib")
ATTACKS = {name: [f"Write {name}:NAME"] for name in LIBRARIES} | {
    "autoattack": ["a fixed plan", "  APGDT(steps=900", "  Square(steps=5000"],
    "autoattack-plus": ["a fixed plan", "  5 x APGD(steps=100, loss=ce", "  5 x FABU("],
    "autoattack-rand": ["a fixed plan", "  APGD(steps=100, loss=dlr, "],
    "corruptions": ["Settings (--set KEY=VALUE)", "Other threats: corruption.", "Needs decisions"],
    "patch": ["Settings (--set KEY=VALUE)", "Other threats: patch.", "Needs gradients"],
    "patch-rl": ["Settings (--set KEY=VALUE)", "Other threats: patch.", "Needs scores"],
    "verdict": [
        "  effort = standard",
        "l2:",
        "linf:",
        "  APGDT(steps=50",
        "if gap <= 0.06",
        "  6 x APGD(",
    ],
    "spatial": ["Settings (--set KEY=VALUE)", "Other threats: spatial.", "Needs decisions"],
}
WRAPPING = {
    "bit-depth",
    "ensemble",
    "gaussian-noise",
    "jpeg",
    "k-wta",
    "median-blur",
    "random-resize-pad",
    "randomized-smoothing",
    "thermometer",
}

SOURCES = {
    *("clip", "open_clip", "torchvision", "timm", "hf", "robustbench", "keras", "python", "http"),
    *("torchscript", "exported", "onnx", "sklearn"),
}
OPTIONS = {
    "certify": "--model --data --eps --n --batch-size --seed --device --json",
    "attack": "--model --attack --effort --data --norm --eps --set --restarts --n --batch-size "
    "--seed --device --targeted --exact --json --save-adversarials --access --queries --surrogate "
    "--threat --naive --precision --compile "
    "--weights --num-classes --normalize --resize --trust-remote-code "
    "--class-map --indices --stratified",
    "doctor": "model data --weights --num-classes --normalize --resize --trust-remote-code "
    "--class-map --indices --n --stratified --seed --device",
    "convert": "file --out --key --unsafe-pickle",
    "export": "model --out --size --channels",
    "explain": "--model --attack --out --data --norm --eps --threat --set --samples --n "
    "--batch-size --seed --device --targeted",
    "bench": "suite --models --attacks --effort --out --data --norm --eps --threat --n --seed "
    "--slice --shard --executor --workers --batch-size --device --precision --compile",
    "merge": "folders --out",
    "plot": "folder --out --models --suite --data",
    "baseline": "",
    "check": "--model --baseline --config --data --margin --alpha --policy --sequential "
    "--max-samples --time-limit --on-inconclusive --batch-size --device --junit --summary --json "
    "--trend --openmetrics",
    "init": "--model --out",
    "power": "--drop --discordance --alpha --power",
    "leaderboard": "folder --suite --data --format --out --no-time",
    "compare": "A B --runs --suite --data --show",
    "train": "--out --recipe --arch --arch-set --defense --set --data --test-data --card-data "
    "--exclude --norm --eps --test-eps --epochs --batch-size --lr --augment --warmup --ema "
    "--weight-decay --mean --std --precision --seed --check --check-set --n --summary --behind "
    "--optimizer --schedule --cutout --average --holdout --probe --probe-set --patience "
    "--per-class --init-from --freeze --beside --device --tensorboard",
    "validate": "attack --set --check --norm --json",
    "list": "kind",
    "show": "name",
}


@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_shows_every_command_and_option_whole(rbl, columns):
    done = rbl("--help", COLUMNS=columns)
    assert done.returncode == 0
    commands = re.findall(r"^\u2502 (\w+) {2,}\w", done.stdout, re.MULTILINE)
    assert set(commands) == set(OPTIONS)
    for command, options in OPTIONS.items():
        text = rbl(command, "--help", COLUMNS=columns)
        assert text.returncode == 0
        assert "\u2026" not in text.stdout
        shown = set(re.findall(r"^\u2502[ *]+(--[\w-]+) ", text.stdout, re.MULTILINE))
        arguments = (
            r"^\u2502[ *]{1,6}(kind|name|attack|suite|folders?|file|model|data|A|B)(?:\.\.\.)? "
        )
        shown |= set(re.findall(arguments, text.stdout, re.MULTILINE))
        assert shown == {*options.split(), "--help"}


def test_without_arguments_it_shows_the_help(rbl):
    done = rbl()
    assert done.returncode == 2
    assert "Usage: rbl" in done.stdout + done.stderr
    assert "rbl:" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["attack", "--help"], ["train", "--help"]])
def test_help_needs_no_torch(arguments):
    code = (
        "import sys\nfrom robustbench_lite.cli import main\n"
        f"sys.argv = ['rbl', *{arguments}]\n"
        "try:\n    main()\n"
        "finally:\n    print({'torch', 'pandas', 'numpy', 'scipy'} & set(sys.modules))\n"
    )
    plain = {k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"}  # it colours the help
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    assert "Usage: rbl" in done.stdout
    assert done.stdout.endswith("\nset()\n")
