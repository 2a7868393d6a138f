"""Asking about images: what is in the ledger is read there, the rest is asked and kept there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from robustbench_lite.errors import IncompleteError
from robustbench_lite.sources.models.query_ledger import Book, Question, begun, opened
from robustbench_lite.sources.models.remote_calls import Calls, UnansweredError
from robustbench_lite.sources.models.remote_protocols import Floats, Service


class Asking:
    """How a service is asked. It has slots for the reason that `Calls` has.

    While it asks afresh, the n-th time that an image is asked about is a question of its own, with
    an answer of its own. These are kept too: who asks the same in the same order gets the same.

    Args:
        service: whom.
        calls: how one call goes.
        ledger: the file that answers are kept in.
        batch: images a call.
        budget: images that may ever be paid for; 0 for any number.
    """

    __slots__ = ("_afresh", "_classes", "_times", "batch", "budget", "calls", "ledger", "service")

    def __init__(
        self, service: Service, calls: Calls, ledger: Path, *, batch: int, budget: int
    ) -> None:
        self.service, self.calls, self.ledger = service, calls, ledger
        self.batch, self.budget = batch, budget
        self._afresh = False
        self._classes = service.count
        self._times: dict[bytes, int] = {}

    @property
    def afresh(self) -> bool:
        """Is every time a question of its own?"""
        return self._afresh

    @afresh.setter
    def afresh(self, afresh: bool) -> None:
        self._afresh = afresh
        if not afresh:
            self._times = {}

    def answers(self, images: Floats) -> Floats:
        """(N, K) logits of images (N, C, H, W).

        Raises:
            IncompleteError: the service does not answer, or the budget is spent.
            InputError: the service refuses, or the ledger is none.
        """
        if not len(images):
            return np.zeros((0, self._classes or 2), np.float32)
        keys = [_key_of(image) for image in images]
        numbers = {key: self._number(key) for key in dict.fromkeys(keys)}
        place = {(key, numbers[key]): i for i, key in enumerate(keys)}
        if not self.ledger.is_file() or not self.ledger.stat().st_size:
            begun(self.ledger, self.service.digest, self.calls.shown)
        with opened(self.ledger) as book:
            known = book.known(place)
            while left := [question for question in place if question not in known]:
                with book.turn():
                    # Others may have asked the same until it was this one's turn.
                    known |= book.known(left) or self._asked(book, left, images, place)
        logits = self.service.logits([known[key, numbers[key]] for key in keys])
        self._classes = logits.shape[1]
        return logits

    def _number(self, key: bytes) -> int:
        if not self._afresh:
            return 0
        self._times[key] = self._times.get(key, 0) + 1
        return self._times[key]

    def _asked(
        self, book: Book, left: list[Question], images: Floats, place: dict[Question, int]
    ) -> dict[Question, bytes]:
        """The answers to one call, which are in the book."""
        room = self.budget - book.last() if self.budget else self.batch
        if room < 1:
            raise IncompleteError(
                f"the budget of {self.budget} images is spent and {self.calls.shown} would have "
                f"to be asked about {len(left)} more; what was answered is kept in {self.ledger}: "
                "run the same command again with a larger budget="
            )
        questions = left[: min(self.batch, room)]
        chosen = images[[place[question] for question in questions]]
        earlier = book.any()
        self.calls.called = max(self.calls.called, float(book.about("called")))
        try:
            given = self.calls.ask(
                self.service.question(chosen),
                lambda body: self.service.answers(body, len(questions), earlier),
                questions[0][0],
            )
        except UnansweredError as error:
            raise IncompleteError(
                f"{self.calls.shown} failed {self.calls.tries} times in a row, at last because "
                f"{error}; what was answered ({book.last()} images) is kept in {self.ledger}: "
                "run the same command again"
            ) from error
        answers = dict(zip(questions, given, strict=True))
        book.write(answers, self.calls.called)
        return answers


def _key_of(image: Floats) -> bytes:
    """Of an image (C, H, W), what changes with any bit of it."""
    seen = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    seen.update(np.ascontiguousarray(image, "<f4").tobytes())
    return seen.digest()
