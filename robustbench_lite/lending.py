"""A classifier lent to an attack that was written for another library, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_lite.errors import UnsupportedError
from robustbench_lite.geometry import in_box
from robustbench_lite.oracle import Oracle
from robustbench_lite.passes import Passes
from robustbench_lite.rng import numbered
from robustbench_lite.threat import Access


class Lent(nn.Module):
    """Images (M, C, H, W) in [0, 1] to logits (M, K), for any M: it knows nothing of slots.

    It gives what the access allows: logits that gradients flow through, logits without, or 1 for
    the predicted class and 0 for the others. The classifier inside cannot be reached through it:
    its one parameter only tells the device, and switching modes does nothing.

    Attributes:
        forwards: rows that were asked about.
        backwards: rows that a gradient was asked of.
        invalid: (slots,) bool: some image in the box got logits that are NaN or infinite. Whose it
            was is known only if as many rows were asked as there are slots; else it is everyone's.
    """

    def __init__(self, passes: Passes, access: Access, classes: int, keys: Tensor) -> None:
        super().__init__()
        device = passes.classifier.device
        self.passes, self.access, self.classes = passes, access, classes
        self.device_anchor = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)
        self.forwards = self.backwards = 0
        self.keys, self.calls = keys, 0
        self.invalid = torch.zeros(len(keys), dtype=torch.bool, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """(M, K) float32."""
        images = x.float()
        if not len(images):
            return images.flatten(1).sum(1, keepdim=True).expand(0, self.classes)
        self.forwards += len(images) * self.passes.eot
        follow = torch.is_grad_enabled() and self.access >= Access.GRADIENTS
        with torch.set_grad_enabled(follow):
            logits = self.passes.answers(images, self._questions(len(images)))
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        self._watch(images.detach(), logits.detach())
        if self.access >= Access.SCORES:
            return logits
        return nn.functional.one_hot(logits.argmax(1), self.classes).to(logits.dtype)

    def _questions(self, rows: int) -> Tensor | None:
        """(rows,) random keys; they are those of the slots if a row is asked for each slot."""
        if not self.passes.classifier.randomized:
            return None
        self.calls += 1
        row, slots = torch.arange(rows, device=self.keys.device), len(self.keys)
        keys = numbered(self.keys[row % slots], row // slots)
        return numbered(keys, torch.full_like(keys, self.calls))

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient) * self.passes.eot

    def _watch(self, images: Tensor, logits: Tensor) -> None:
        bad = ~torch.isfinite(logits).all(1)
        if not bool(bad.any()):
            return
        bad = bad & in_box(images)
        self.invalid |= bad if len(bad) == len(self.invalid) else bad.any()


@contextmanager
def lend(oracle: Oracle[Any]) -> Iterator[Lent]:
    """The oracle's classifier as a module of torch, for the time of the block.

    Rows cannot be matched to slots: all of them are charged to the slots in equal parts, rounded
    up, and no proposal is noted. So the borrower must hand what it found to `State.adv`.

    Raises:
        UnsupportedError: the threat caps the queries, which the borrower would not know.
    """
    if oracle.threat.queries is not None:
        raise UnsupportedError(
            "an attack of another library asks the model as often as it likes and cannot keep to "
            "a cap on queries; leave out the cap or choose an attack of ours"
        )
    slots = len(oracle.x)
    lent = Lent(oracle.passes, oracle.access, oracle.classes, oracle.ledger.keys).eval()
    yield lent
    book = oracle.ledger
    told = oracle.surrogate is None
    forwards = -(-lent.forwards // slots) if told else 0
    oracle.ledger = replace(
        book,
        queries=book.queries + forwards,
        budget=book.budget - forwards,
        backwards=book.backwards + -(-lent.backwards // slots),
        invalid=book.invalid | lent.invalid if told else book.invalid,
    )
