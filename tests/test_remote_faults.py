"""A service that fails for a while is asked again; one that refuses is not; nothing leaks."""

import json
import socket
from collections.abc import Callable, Iterator

import pytest
import remote_server as server
import torch
from remote_server import OneByOne, Service, digest, labels_of, saying, scores_of, serving, wrong
from torch import Tensor

from robustbench_lite.errors import DamagedError, IncompleteError, InputError
from robustbench_lite.models import load_model
from robustbench_lite.registry import load_data
from robustbench_lite.sources.models.query_ledger import spent

Start = Callable[..., Service]


@pytest.fixture(scope="module")
def local() -> OneByOne:
    return OneByOne()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return load_data("digits").x[:8]


@pytest.fixture
def start() -> Iterator[Start]:
    running = []

    def begin(predict: server.Predict, **how: object) -> Service:
        running.append(serving(Service(predict, **how)))
        return running[-1].__enter__()

    yield begin
    for one in running:
        one.__exit__(None, None, None)


def first(*faults: object) -> Callable[[int], object]:
    return lambda number: faults[number] if number < len(faults) else None


def always(fault: object) -> Callable[[int], object]:
    return lambda number: fault


FAULTS = {
    "a 500": saying(500, "out of order"),
    "a 503 with a page": saying(503, "<html>come back</html>"),
    "a 429": saying(429, ""),
    "a 429 with a date": saying(429, "", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "a 429 with nonsense": saying(429, "", Retry_After="9" * 5000),
    "no answer": server.slow,
    "drops of an answer": server.dripping,
    "half an answer": server.truncated,
    "a reset connection": server.reset,
    "an answer without an end": server.endless,
    "no JSON": saying(200, "hello"),
    "no UTF-8": saying(200, b'{"predictions": "\xff"}'),
    "deep JSON": saying(200, "[" * 100_000),
    "other JSON": saying(200, '{"scores": []}'),
    "a row less": wrong(lambda rows: rows[1:]),
    "a row more": wrong(lambda rows: [*rows, rows[0]]),
    "a score less": wrong(lambda rows: [row[1:] for row in rows]),
    "ragged rows": wrong(lambda rows: [rows[0][1:], *rows[1:]]),
    "NaN": wrong(lambda rows: [[float("nan")] * 10, *rows[1:]]),
    "infinity": wrong(lambda rows: [[float("inf")] * 10, *rows[1:]]),
    "more than a float holds": wrong(lambda rows: [[1e39] * 10, *rows[1:]]),
    "more than a double holds": wrong(lambda rows: [[10**400] * 10, *rows[1:]]),
    "nothing": wrong(lambda rows: [[None] * 10, *rows[1:]]),
    "numbers as texts": wrong(lambda rows: [["1"] * 10, *rows[1:]]),
    "labels": wrong(lambda rows: [3 for _ in rows]),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_followed_by_another_try(start, tmp_path, local, x, fault):
    ledger = tmp_path / "ledger.sqlite"
    service = start(scores_of(local), faults=first(fault))
    timeout = 1 if fault in (server.slow, server.dripping) else 30
    model = load_model(service.address(f"num_classes=10&timeout={timeout}&ledger={ledger}"))
    assert torch.equal(model(x), local(x))
    assert (service.calls, service.answered, spent(ledger)) == (2, 8, 8)


TOLD = {
    "it said 500 Internal Server Error: out of [31m order": saying(500, "out of\n\x1b[31m order"),
    "it did not answer within 1 s": server.slow,
    "it did not answer within 1 s; what was": server.dripping,
    "it gave 4 answers for 5 images": wrong(lambda rows: rows[1:]),
    "it gave 9 scores for an image, not 10": wrong(lambda rows: [row[1:] for row in rows]),
    "it gave an answer that is not JSON (it holds NaN)": wrong(lambda r: [[float("nan")] * 10] * 5),
    "it gave scores that are not finite": wrong(lambda r: [[1e39] * 10] * 5),
    "it gave an answer of more than 67108864 bytes": server.endless,
    "it gave no list of scores for an image (give access=labels": wrong(lambda rows: [1] * 5),
}


@pytest.mark.parametrize(("told", "fault"), TOLD.items(), ids=TOLD)
def test_who_fails_always_is_given_up(start, tmp_path, local, x, told, fault):
    ledger = tmp_path / "ledger.sqlite"
    service = start(scores_of(local), faults=lambda number: fault if number else None)
    timeout = 1 if fault in (server.slow, server.dripping) else 30
    model = load_model(service.address(f"num_classes=10&timeout={timeout}&tries=2&ledger={ledger}"))
    model(x[:3])
    with pytest.raises(IncompleteError) as caught:
        model(x)
    said = str(caught.value)
    assert f"failed 2 times in a row, at last because {told}" in said
    assert said.endswith(f"(3 images) is kept in {ledger}: run the same command again")
    assert (caught.value.exit_code, service.calls, spent(ledger)) == (6, 3, 3)
    service.faults = always(None)
    assert torch.equal(model(x), local(x))
    assert service.answered == spent(ledger) == 8  # the first three were not asked again


def test_nobody_listens(tmp_path, x):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
        ledger = tmp_path / "l"
        model = load_model(f"{address}#tries=3&backoff=0.001&ledger={ledger}")
        with pytest.raises(IncompleteError, match=r"reached \(Connection refused\).* \(0 images\)"):
            model(x)


def test_a_try_waits_as_long_as_the_service_asks_for(start, tmp_path, local, x):
    service = start(scores_of(local), faults=first(server.busy))
    model = load_model(service.address(f"ledger={tmp_path / 'l'}"))
    assert torch.equal(model(x), local(x))
    assert (service.calls, service.early) == (2, 0)


REFUSALS = {
    "refuses to answer (404 Not Found: no such model)": saying(404, "no such model"),
    "refuses to answer (400 Bad Request: xxx": saying(400, "x" * 5000),
    "has moved (307 Temporary Redirect); give http://other/": saying(
        307, "", Location="http://other/"
    ),
}


@pytest.mark.parametrize(("told", "fault"), REFUSALS.items(), ids=REFUSALS)
def test_a_refusal_is_told_at_once(start, tmp_path, local, x, told, fault):
    service = start(scores_of(local), faults=always(fault))
    model = load_model(service.address(f"ledger={tmp_path / 'l'}"))
    with pytest.raises(InputError) as caught:
        model(x)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400
    assert service.calls == 1


def test_a_redirect_to_another_host_is_not_followed(start, tmp_path, local, x):
    other = start(scores_of(local))
    there = saying(307, "", Location=other.address())
    model = load_model(
        start(scores_of(local), faults=always(there)).address(f"ledger={tmp_path / 'l'}")
    )
    with pytest.raises(InputError, match="has moved"):
        model(x)
    assert other.calls == 0


def test_the_token_is_sent_and_shown_nowhere(start, tmp_path, local, x, monkeypatch):
    def echo(handler: server.Handler, service: Service) -> None:
        handler.say(401, json.dumps({"you sent": handler.headers["Authorization"]}))

    monkeypatch.setenv("THE_KEY", "s3cret-t0ken\n")
    ledger = tmp_path / "ledger.sqlite"
    service = start(scores_of(local))
    model = load_model(service.address(f"token=THE_KEY&ledger={ledger}"))
    model(x)
    assert service.headers["Authorization"] == "Bearer s3cret-t0ken"
    service.faults = always(echo)
    with pytest.raises(InputError) as caught:
        model(1 - x)
    assert "Bearer ***" in str(caught.value)
    assert b"s3cret" not in ledger.read_bytes()
    assert "s3cret" not in f"{caught.value}{model.name}{model}"


@pytest.mark.parametrize("value", ["", "two words", "naïve", "a\nb"])
def test_a_variable_without_a_token(tmp_path, monkeypatch, value):
    monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(InputError, match="variable THE_KEY holds no token") as caught:
        load_model(f"http://localhost/#token=THE_KEY&ledger={tmp_path / 'l'}")
    assert not value or value not in str(caught.value)


def test_a_label_that_is_no_class_is_paid_for_once(start, tmp_path, local, x):
    ledger = tmp_path / "l"
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    named = start(lambda x: [names[i] for i in labels_of(local)(x)])
    with pytest.raises(InputError, match=r'label "[a-z]+", which is none of its 10 classes'):
        load_model(named.address(f"access=labels&num_classes=10&ledger={ledger}"))(x)
    again = load_model(named.address(f"access=labels&classes={','.join(names)}&ledger={ledger}"))
    assert torch.equal(again(x).argmax(1), local(x).argmax(1))
    assert named.answered == spent(ledger) == 8


def test_a_ledger_of_another_service_or_none_at_all(tmp_path, start, local, x):
    ledger = tmp_path / "l"
    one, other = start(scores_of(local)), start(scores_of(local))
    load_model(one.address(f"ledger={ledger}"))(x)
    with pytest.raises(InputError, match=f"what http://127.0.0.1:{one.port}/predict answered"):
        load_model(other.address(f"ledger={ledger}"))
    with pytest.raises(InputError, match="with these settings; give another file"):
        load_model(one.address(f"layout=nhwc&ledger={ledger}"))
    text = tmp_path / "text"
    text.write_text("some text that is longer than the header of a database, or about as long")
    with pytest.raises(DamagedError, match=r"text is no ledger"):
        load_model(one.address(f"ledger={text}"))
    with pytest.raises(InputError, match="is in no folder that exists"):
        load_model(one.address(f"ledger={tmp_path / 'a' / 'b'}"))


def test_images_that_are_not_numbers_are_not_sent(start, tmp_path, local, x):
    service = start(scores_of(local))
    model = load_model(service.address(f"ledger={tmp_path / 'l'}"))
    damaged = x.clone()
    damaged[2, 0, 0, 0] = torch.nan
    logits = model(damaged)
    assert torch.isnan(logits[2]).all()
    assert torch.equal(logits[[0, 1, 3]], local(x[[0, 1, 3]]))
    assert digest(damaged[2]) not in service.asked
    assert service.answered == 7


BAD = {
    "http://#": "is no address",
    "http:///predict#": "is no address",
    "http://host:99999/#": "is no address",
    "http://a b/#": "is no address",
    "http://me:secret@host/#": "a name and a password in an address would be shown",
    "http://h/#speed=5": "did you mean",
    "http://h/#rate=fast": "rate=fast is not a number above 0",
    "http://h/#rate=0": "rate=0 is not a number above 0",
    "http://h/#timeout=nan": "timeout=nan is not a number above 0",
    "http://h/#tries=0": "tries=0 is not a number of 1 or more",
    "http://h/#protocol=v3": "'v3'",
    "http://h/#access=gradients": "'gradients'",
    "http://h/#access=labels": "give num_classes=",
    "http://h/#num_classes=1": "has one class",
    "http://h/#classes=a,b,a": "names 'a' twice",
    "http://h/#classes=a,b&num_classes=3": "num_classes=3, but classes names 2",
    "http://h/#classes=none.txt": "classes=none.txt cannot be read",
    "http://h/#token=NOT_THERE": "the environment variable NOT_THERE holds no token",
}


@pytest.mark.parametrize(("spec", "told"), BAD.items(), ids=BAD)
def test_what_cannot_be_an_address_or_a_setting(tmp_path, monkeypatch, spec, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_model(spec)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not any(tmp_path.iterdir())
