"""--threat at the command line: what it runs, and how it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from rbl_attacks.patch_rl import PatchRL

from robustbench_lite import evaluate, load_data, load_model
from robustbench_lite.structured import Patch
from robustbench_lite.threat import Access

MODEL = ("attack", "--model", "digits-cnn", "--n", 10)


@pytest.mark.parametrize(
    ("attack", "threat", "title"),
    [
        ("patch", "patch:area=0.1", "patch of 10 %"),
        ("patch-rl", "patch", "patch of 5 %"),
        ("spatial", "spatial:degrees=20,shift=0", "turn by 20 degrees, shift by 0 %"),
        ("corruptions", "corruption:severity=2", "corruption up to severity 2"),
    ],
)
def test_every_threat_runs_and_is_named(
    forked_rbl, tmp_path: Path, attack: str, threat: str, title: str
) -> None:
    files = ("--set", "steps=60", "--json", "out.json", "--save-adversarials", "out.npz")
    done = forked_rbl(*MODEL, "--attack", attack, "--threat", threat, *files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert title in done.stdout
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert entry["threat"]["threat"] == threat.partition(":")[0]
    assert entry["threat"]["access"] == "gradients"
    assert entry["n"] == len(entry["samples"]) == 10
    assert entry["robust_accuracy"] <= entry["clean_accuracy"]
    traced = [sample for sample in entry["samples"] if "trace" in sample]
    assert len(traced) == (sum(s["correct"] for s in entry["samples"]) if "rl" in attack else 0)
    with np.load(tmp_path / "out.npz") as archive:
        lost = [sample["correct"] and not sample["robust"] for sample in entry["samples"]]
        assert archive["adversarial"].tolist() == lost


def test_a_real_process_says_what_the_library_says(rbl, tmp_path: Path) -> None:
    threat = ("--threat", "patch:area=0.08", "--access", "scores", "--queries", 100)
    words = (*MODEL, "--attack", "patch-rl", *threat, "--set", "actions=8", "--json", "a.json")
    done = rbl(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads((tmp_path / "a.json").read_text())
    outcome = evaluate(
        load_model("digits-cnn"),
        PatchRL(actions=8),
        Patch(0.08, Access.SCORES, queries=100),
        load_data("digits").sample(10, 0),
    )
    for field in ("threat", "attack", "robust_accuracy", "queries_per_sample"):
        assert entry[field] == outcome.to_json()[field]
    for sample, record in zip(entry["samples"], outcome.records, strict=True):
        assert sample.get("trace", []) == pytest.approx(list(record.trace), abs=1e-5)


def test_a_real_process_refuses_with_one_sentence(refused) -> None:
    sentence = refused(*MODEL, "--attack", "patch", "--threat", "patch:area=2")
    assert "area: Input should be less than or equal to 1, not '2'" in sentence


BAD = [
    ("patch", "patch:area=0", "greater than 0"),
    ("patch", "patch:area=much", "valid number"),
    ("patch", "patch:area=nan", "not 'nan'"),
    ("patch", "patch:area", "write it as patch:KEY=VALUE"),
    ("patch", "patch:area=0.1,area=0.2", "gives 'area' twice"),
    ("patch", "patch:size=3", "no setting of 'patch' is called 'size'; did you mean"),
    ("patch", "patch:queries=10", "give them as --access and --queries"),
    ("patch", "patch:access=1", "give them as --access and --queries"),
    ("patch", "sticker", "no threat is called 'sticker'; did you mean"),
    ("spatial", "spatial:degrees=181", "less than or equal to 180"),
    ("spatial", "spatial:shift=-0.1", "greater than or equal to 0"),
    ("corruptions", "corruption:severity=6", "less than or equal to 5"),
    ("corruptions", "corruption:severity=0", "greater than or equal to 1"),
    ("corruptions", "corruption:severity=2.5", "valid integer"),
    ("pgd", "patch", "'pgd' does not support patch of 5 %; give --norm"),
    ("spatial", "patch", "'spatial' does not support patch of 5 %; give --threat spatial"),
    ("corruptions", "spatial", "give --threat corruption"),
]


@pytest.mark.parametrize(("attack", "threat", "sentence"), BAD, ids=str)
def test_bad_threats_are_refused(forked_refused, attack: str, threat: str, sentence: str) -> None:
    assert sentence in forked_refused(*MODEL, "--attack", attack, "--threat", threat)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-a", "patch", "--norm", "l2", "--eps", 1), "give --threat patch"),
        (("-a", "patch", "--threat", "patch", "--eps", 1), "has no norm and no eps"),
        (("-a", "patch", "--threat", "patch", "--norm", "l2"), "has no norm and no eps"),
        (("-a", "patch", "--threat", "patch", "--access", "scores"), "needs gradients"),
        (("-a", "patch-rl", "--threat", "patch", "--access", "decisions"), "needs scores"),
        (("-a", "patch", "--threat", "patch", "--access", "all"), "choose from decisions"),
        (("-a", "patch", "--threat", "patch", "--queries", 0), "--queries"),
        (("-a", "corruptions", "--threat", "corruption", "--set", "kinds=dew"), "names 'dew'"),
        (
            (
                "-a",
                "one-pixel",
            ),
            "give --norm l0",
        ),
        (("-a", "bandits", "--norm", "l1", "--eps", 1), "give --norm l2 or linf"),
        (("-a", "rays", "--targeted", "next"), "no targeted form"),
        (("-a", "nes", "--set", "probes=3"), "multiple of 2"),
        (("-a", "simba", "--set", "basis=wavelet"), "'pixel' or 'dct'"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(
    forked_refused, words: tuple[object, ...], sentence: str
) -> None:
    assert sentence in forked_refused(*MODEL, *words)
