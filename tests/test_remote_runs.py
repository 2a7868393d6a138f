"""`rbl` against a service that fails and runs that are killed: each image is paid for once."""

import json
from pathlib import Path

import pytest
from kill import Started, start
from rbl_attacks.rays import RayS
from rbl_attacks.square import Square
from remote_server import Handler, OneByOne, Service, labels_of, reset, saying, scores_of, serving

from robustbench_lite import Access, Classifier, Lp, Norm, evaluate
from robustbench_lite.registry import load_data
from robustbench_lite.sources.models.query_ledger import spent

HOW = ("--data", "digits", "--norm", "linf", "--eps", "0.1")
SQUARE = ("--attack", "square", "--set", "steps=100", "--n", "20", *HOW)
SHORT = ("--attack", "square", "--set", "steps=30", "--n", "8", *HOW)


@pytest.fixture(scope="module")
def local() -> OneByOne:
    return OneByOne()


def attack(service: Service, folder: Path, *arguments: object, settings: str = "") -> Started:
    folder.mkdir(exist_ok=True)
    address = service.address(f"ledger={folder / 'answers'}{settings}")
    options = (*arguments, "--json", folder / "out.json")
    return start("attack", "--model", address, *options, cwd=folder)


def samples(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "out.json").read_text())[0]["samples"]
    return found


def test_one_call_in_five_fails_and_nothing_changes(tmp_path, local):
    kinds = [
        saying(500, "out of order"),
        saying(429, ""),
        saying(200, "no JSON"),
        reset,
    ]
    faults = lambda number: kinds[number // 5 % 4] if number % 5 == 2 else None  # noqa: E731
    with serving(Service(scores_of(local), faults=faults)) as service:
        code, _, stderr = attack(service, tmp_path, *SQUARE).said()
    assert code == 0, stderr
    assert service.calls > 100
    assert service.answered == spent(tmp_path / "answers")
    expected = evaluate(
        Classifier(local, access=Access.SCORES),
        Square(steps=100),
        Lp(Norm.LINF, 0.1),
        load_data("digits").sample(20, 0),
    ).to_json()["samples"]
    assert samples(tmp_path) == expected
    assert {s["robust"] for s in expected} == {True, False}


def test_a_killed_run_pays_for_the_rest_only(tmp_path, local):
    with serving(Service(scores_of(local))) as service:
        assert attack(service, tmp_path / "whole", *SHORT).said()[0] == 0
    paid = service.answered

    running: list[Started] = []

    def kill(handler: Handler, service: Service) -> None:
        running[-1].process.kill()
        handler.close_connection = True

    moments = {2, 15}
    faults = lambda number: kill if number in moments else None  # noqa: E731
    with serving(Service(scores_of(local), faults=faults)) as service:
        for _ in moments:
            running.append(attack(service, tmp_path / "killed", *SHORT))
            assert running[-1].said()[0] == -9
            assert service.answered == spent(tmp_path / "killed" / "answers")
        running.append(attack(service, tmp_path / "killed", *SHORT))
        assert running[-1].said()[0] == 0
    assert service.answered == spent(tmp_path / "killed" / "answers") == paid
    assert samples(tmp_path / "killed") == samples(tmp_path / "whole")


def test_two_processes_share_what_they_pay_for(tmp_path, local):
    with serving(Service(scores_of(local))) as service:
        two = [attack(service, tmp_path, *SHORT, settings="&batch=3") for _ in range(2)]
        assert [one.said()[0] for one in two] == [0, 0]
        together = service.answered
        assert together == spent(tmp_path / "answers")
        assert max(service.asked.values()) == 2  # to find out whether it is random
        assert attack(service, tmp_path, *SHORT).said()[0] == 0
    assert service.answered == together


def test_an_attack_with_labels_only(tmp_path, local):
    rays = ("--attack", "rays", "--set", "steps=30", "--n", "8", "--access", "decisions", *HOW)
    with serving(Service(labels_of(local))) as service:
        settings = "&access=labels&num_classes=10"
        code, stdout, stderr = attack(service, tmp_path, *rays, settings=settings).said()
    assert code == 0, stderr
    assert "probabilities" not in stdout
    assert service.answered == spent(tmp_path / "answers")
    expected = evaluate(
        Classifier(local, access=Access.DECISIONS),
        RayS(steps=30),
        Lp(Norm.LINF, 0.1, access=Access.DECISIONS),
        load_data("digits").sample(8, 0),
    )
    kept = ("id", "correct", "robust", "queries", "size")
    assert [[s[k] for k in kept] for s in samples(tmp_path)] == [
        [s[k] for k in kept] for s in expected.to_json()["samples"]
    ]


def test_a_budget_ends_the_command_and_a_larger_one_goes_on(tmp_path, local):
    with serving(Service(scores_of(local))) as service:
        code, stdout, stderr = attack(service, tmp_path, *SHORT, settings="&budget=60").said()
        assert (code, stdout) == (6, "")
        assert stderr.startswith("rbl: the budget of 60 images is spent")
        assert f"is kept in {tmp_path / 'answers'}: run the same command again" in stderr
        assert not (tmp_path / "out.json").exists()
        assert service.answered == spent(tmp_path / "answers") == 60
        code, _, stderr = attack(service, tmp_path, *SHORT, settings="&budget=5000").said()
    assert code == 0, stderr
    assert service.answered == spent(tmp_path / "answers") < 5000


def test_a_refusal_is_one_sentence(forked_refused, local):
    with serving(Service(scores_of(local), faults=lambda n: saying(403, "no"))) as service:
        said = forked_refused(
            *("attack", "--model", f"{service.address()}&ledger=/nowhere/l", *SHORT)
        )
    assert "is in no folder that exists" in said
    assert service.calls == 0


SUITE = """
name = "remote"
data = "digits"
n = 8

[[trials]]
attack = "square"
norm = "linf"
eps = 0.1
set = { steps = 20 }
"""


def test_a_benchmark_that_is_lost_is_paid_for_already(tmp_path, local):
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    with serving(Service(scores_of(local))) as service:
        spec = service.address(f"num_classes=10&ledger={tmp_path / 'answers'}")
        for out in ("runs", "lost and begun anew"):
            bench = ("bench", suite, "--models", spec, "--out", tmp_path / out)
            code, stdout, stderr = start(*bench, cwd=tmp_path).said()
            assert code == 0, stderr
            assert "127.0.0.1" in stdout
            assert service.answered == spent(tmp_path / "answers") > 0
    assert max(service.asked.values()) == 2
