"""A model behind an address: what is sent, what is paid for, and what the judge makes of it."""

import os
import re
import signal
import socket
import threading
import time
from collections import Counter

import pytest
import torch
from conftest import _FORK
from rbl_attacks.square import Square
from remote_server import OneByOne, Service, digest, labels_of, scores_of, serving
from torch import Tensor

from robustbench_lite import Access, Classifier, Dataset, Lp, Norm, evaluate
from robustbench_lite.errors import IncompleteError
from robustbench_lite.evidence import Randomness
from robustbench_lite.identity import digest_of_model
from robustbench_lite.models import load_model, load_with_profile
from robustbench_lite.registry import load_data
from robustbench_lite.sources.models.query_ledger import spent

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BALL = Lp(Norm.LINF, 0.1, access=Access.SCORES)


@pytest.fixture(scope="module")
def local() -> OneByOne:
    return OneByOne()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits").sample(12, 0)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Where the answers of a service are kept, wherever that is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda: next((tmp_path / "robustbench-lite" / "remote").glob("*.sqlite"))


def random_images(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize("answers", ["scores", "labels", "names"])
def test_every_float_arrives_and_every_answer_is_understood(
    ledger, local, protocol, layout, answers
):
    x = random_images(5)
    settings = f"protocol={protocol}&layout={layout}"
    predict, expected = scores_of(local), local(x)
    if answers != "scores":
        settings += "&access=labels&num_classes=10"
        predict = labels_of(local)
        expected = 2.0 * torch.nn.functional.one_hot(expected.argmax(1), 10) - 1
    if answers == "names":
        settings += f"&classes={','.join(NAMES)}"
        predict = lambda x: [NAMES[label] for label in labels_of(local)(x)]  # noqa: E731
    with serving(Service(predict, protocol=protocol, layout=layout)) as service:
        model = load_model(service.address(settings))
        assert torch.equal(model(x), expected)
    assert service.asked == Counter(digest(image) for image in x)
    assert model.access is (Access.SCORES if answers == "scores" else Access.DECISIONS)
    assert model.classes == (NAMES if answers == "names" else None)


@pytest.mark.parametrize("shape", [(3, 1, 7), (1, 6, 2)])
def test_any_shape_of_images(ledger, shape):
    x = torch.rand(4, *shape)
    with serving(Service(lambda x: x.flatten(1).tolist(), layout="nhwc")) as service:
        assert torch.equal(load_model(service.address("layout=nhwc"))(x), x.flatten(1))


def test_what_the_service_gets_is_normalised_as_it_likes(ledger):
    x = random_images(2)
    seen: list[Tensor] = []

    def see(images: Tensor) -> list[list[float]]:
        seen.append(images)
        return images.flatten(1).tolist()

    with serving(Service(see)) as service:
        load_model(service.address("normalize=0.5/0.25"))(x)
    torch.testing.assert_close(seen[0], (x - 0.5) / 0.25)


def test_what_was_answered_is_not_asked_again(ledger, local):
    x = random_images(10)
    with serving(Service(scores_of(local))) as service:
        model = load_model(service.address("batch=4"))
        assert torch.equal(model(x[[0, 1, 0, 1, 2]]), local(x[[0, 1, 0, 1, 2]]))
        assert (service.calls, service.answered) == (1, 3)
        assert torch.equal(model(x), local(x))
        assert (service.calls, service.answered) == (3, 10)
        again = load_model(service.address("batch=2&rate=1&tries=1&timeout=7&budget=10"))
        assert torch.equal(again(x.flip(0)), local(x.flip(0)))
    assert (service.calls, service.answered, spent(ledger())) == (3, 10, 10)
    assert set(service.asked.values()) == {1}


def test_nearly_equal_images_are_two_questions(ledger, local):
    x = random_images(1)
    above = torch.nextafter(x, torch.tensor(2.0))
    with serving(Service(scores_of(local))) as service:
        load_model(service.address())(torch.cat([x, above, x.reshape(1, 1, 8, 8)]))
    assert service.answered == 2


def test_threads_that_ask_the_same_pay_once(ledger, local):
    x = random_images(20)
    begun = threading.Barrier(4)
    seen: list[Tensor] = []

    def slowly(images: Tensor) -> list[list[float]]:
        time.sleep(0.02)
        return scores_of(local)(images)

    with serving(Service(slowly)) as service:
        model = load_model(service.address("batch=3"))
        model(x[:1])

        def ask() -> None:
            begun.wait()
            seen.append(model(x))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 4
    assert all(torch.equal(logits, local(x)) for logits in seen)
    assert service.answered == spent(ledger()) == 20


def _ask_and_die(address: str, x: Tensor) -> None:
    load_model(address)(x)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_before_it_uses_an_answer_loses_none(ledger, local, tmp_path):
    x = random_images(6)
    with serving(Service(scores_of(local))) as service:
        address = service.address(f"ledger={tmp_path / 'answers'}")
        process = _FORK.Process(target=_ask_and_die, args=(address, x[:4]))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert spent(tmp_path / "answers") == 4
        assert torch.equal(load_model(address)(x), local(x))
    assert service.answered == spent(tmp_path / "answers") == 6


def test_a_budget_is_spent_to_the_last_image_and_not_further(ledger, local):
    x = random_images(12)
    with serving(Service(scores_of(local))) as service:
        with pytest.raises(IncompleteError, match=r"the budget of 7 images is spent and .* 5 more"):
            load_model(service.address("budget=7&batch=5"))(x)
        assert service.answered == spent(ledger()) == 7
        with pytest.raises(IncompleteError):
            load_model(service.address("budget=7"))(x)
        assert service.calls == 2
        assert torch.equal(load_model(service.address("budget=12"))(x), local(x))
    assert service.answered == 12


def test_calls_keep_their_distance(ledger, local):
    x = random_images(3)
    with serving(Service(scores_of(local))) as service:
        begin = time.monotonic()
        for image in x:  # each time as by another process
            load_model(service.address("rate=2"))(image[None])
        assert time.monotonic() - begin >= 2 / 2


def test_a_sound_service_is_asked_twice_about_images_and_claims_only(ledger, local, data):
    with serving(Service(scores_of(local))) as service:
        first = evaluate(load_model(service.address()), Square(steps=5), BALL, data)
        assert first.evidence.randomness is Randomness.NONE
        twice = {image for image, times in service.asked.items() if times == 2}
        claims = [
            image for image, r in zip(first.adversarials, first.records, strict=True) if r.attack
        ]
        assert claims
        assert twice == {digest(image) for image in [*data.x, *claims]}
        assert max(service.asked.values()) == 2
        paid = service.answered
        again = evaluate(load_model(service.address()), Square(steps=5), BALL, data)
    assert again.records == first.records
    assert service.answered == spent(ledger()) == paid


def test_a_random_service_is_found_out_and_every_vote_is_asked(ledger, local, data):
    draws = torch.Generator().manual_seed(1)

    def noisy(x: Tensor) -> list[list[float]]:
        logits: Tensor = local(x)
        return (logits + 3 * torch.randn(logits.shape, generator=draws)).tolist()

    few = data.take(range(4))
    with serving(Service(noisy)) as service:
        model = load_model(service.address())
        outcome = evaluate(model, Square(steps=2), BALL, few)
        assert outcome.evidence.randomness is Randomness.FOUND
        assert any("the model is random" in str(doubt) for doubt in outcome.doubts)
        asked = [service.asked[digest(image)] for image in few.x]
        assert asked == [1 + 1 + 50] * 4  # the first look, the second, the votes
        assert min(service.asked.values()) == 20  # what is searched for is averaged over answers
        paid = service.answered
        assert paid == spent(ledger())
        assert torch.equal(model(few.x), model(few.x))  # as before: asked once
        # Started again it sees the same, for nothing.
        again = evaluate(load_model(service.address()), Square(steps=2), BALL, few)
    assert again.records == outcome.records
    assert service.answered == paid


def test_probabilities_are_searched_on_their_logarithms(ledger, local, data):
    def shares(x: Tensor) -> list[list[float]]:
        return local(x).softmax(1).tolist()

    with serving(Service(shares)) as service:
        outcome = evaluate(load_model(service.address()), Square(steps=30), BALL, data)
    assert any("the outputs are probabilities" in str(doubt) for doubt in outcome.doubts)
    near = evaluate(Classifier(local, access=Access.SCORES), Square(steps=30), BALL, data)
    assert near.robust_accuracy < near.clean_accuracy
    assert [r.robust for r in outcome.records] == [r.robust for r in near.records]


def test_only_what_decides_the_answers_decides_the_digest(ledger, tmp_path, monkeypatch):
    def told(settings: str, address: str = "http://127.0.0.1:9/a") -> str:
        return digest_of_model(load_model(f"{address}#{settings}").model)

    monkeypatch.setenv("KEY", "k")
    ways = (
        *("rate=3", "timeout=4", "tries=5", "backoff=6", "batch=7", "budget=8", "token=KEY"),
        f"ledger={tmp_path / 'l'}",
    )
    assert {told(way) for way in ways} == {told("")}
    others = ("protocol=v2", "layout=nhwc", "access=labels&num_classes=9", "num_classes=9")
    digests = [
        told(other) for other in ("", *others, "protocol=v2&input=x", "protocol=v2&output=y")
    ]
    digests.append(told("", "http://127.0.0.1:9/b"))
    assert len(set(digests)) == len(digests)


def test_asking_does_not_change_the_digest(ledger, local, data):
    with serving(Service(scores_of(local))) as service:
        model = load_model(service.address())
        before = digest_of_model(model)
        evaluate(model, Square(steps=2), BALL, data)
        assert digest_of_model(model) == before


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(ledger):
    with pytest.raises(IncompleteError, match=re.escape("http://[::1]:9/p failed 1 times")):
        load_model("http://[::1]:9/p#tries=1")(random_images(1))


def test_its_profile(ledger, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog, brown\n")
    classifier, profile = load_with_profile(f"https://h/p#access=labels&classes={names}")
    assert classifier.classes == ("cat", "dog, brown")
    assert profile.classes == 2
