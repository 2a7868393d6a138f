"""What one attack sees of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from robustbench_lite.errors import UnsupportedError
from robustbench_lite.ledger import Ledger, rows_of
from robustbench_lite.loss import Objective, reached, standing
from robustbench_lite.passes import Passes
from robustbench_lite.threat import Access, Threat

_UNLIMITED = 2**62

T = TypeVar("T", bound=Threat)


class Oracle(Generic[T]):
    """One attack's view of a classifier for the slots of a batch.

    It gives no more than the threat's access, counts every pass a sample, stops at the threat's
    query cap (a slot without budget is not evaluated any more: it gets zeros and leaves), and
    notes by itself when a query fools the classifier. The threat renders whatever is asked (images
    are clipped to the box first).

    With a surrogate every question but the last look goes to the surrogate: a transfer attack.

    Attributes:
        threat: what the attacker may do; its geometry serves every norm.
        classes: how many logits the classifier gives.
        targeted: y is the class to reach, not the class to leave.
    """

    def __init__(
        self,
        target: Passes,
        threat: T,
        x: Tensor,
        y: Tensor,
        classes: int,
        *,
        surrogate: Passes | None = None,
        targeted: bool = False,
        minimal: bool = False,
        budget: Tensor | None = None,
        keys: Tensor | None = None,
        span: Tensor | None = None,
    ) -> None:
        unlimited = torch.full((len(x),), _UNLIMITED, dtype=torch.int64)
        self.target = target
        self.surrogate = surrogate
        self.threat = threat
        self.classes = classes
        self.targeted = targeted
        self.minimal = minimal
        self.x = x
        self.y = y
        self.ledger = Ledger.blank(threat, x, unlimited if budget is None else budget, keys, span)

    @property
    def access(self) -> Access:
        """What may be asked: the least of what the threat and the classifier give."""
        if self.surrogate is not None:
            return self.surrogate.classifier.access
        return min(self.threat.access, self.target.classifier.access)

    @property
    def passes(self) -> Passes:
        """Whom the search asks: the surrogate where there is one."""
        return self.target if self.surrogate is None else self.surrogate

    @property
    def best(self) -> Tensor:
        """(N, ...) each slot's best adversarial proposal so far, the origin where there is none."""
        return self.ledger.adv

    @property
    def found(self) -> Tensor:
        """(N,) bool: an adversarial proposal was seen."""
        return self.ledger.found

    @property
    def budget(self) -> Tensor:
        """(N,) int64 forward passes left."""
        return self.ledger.budget

    def logits(self, adv: Tensor) -> Tensor:
        """(N, K) logits at `adv` (N, ...). One forward pass.

        Several questions a slot at once, `adv` (N, Q, ...), give (N, Q, K) and cost Q passes.

        Raises:
            UnsupportedError: only decisions may be seen.
        """
        self._require(Access.SCORES, "scores")
        return self._ask(adv)

    def labels(self, adv: Tensor) -> Tensor:
        """(N,) predicted classes at `adv` (N, ...), or (N, Q) at (N, Q, ...), as for `logits`."""
        return self._ask(adv).argmax(-1)

    def fools(self, adv: Tensor) -> Tensor:
        """(N,) bool: is the goal reached at `adv` (N, ...)? (N, Q) at (N, Q, ...).

        A decision, and one forward pass each; a slot without budget gets False.
        """
        logits, answered = self._answers(adv)
        y = self.y if logits.ndim == 2 else self.y[:, None].expand(logits.shape[:2])
        hit = reached(logits.flatten(0, -2), y.flatten(), targeted=self.targeted)
        return hit.reshape(y.shape) & answered

    @contextmanager
    def part(self, rows: Tensor) -> Iterator[Oracle[T]]:
        """The same view of the slots `rows` (M,) only, each at most once: the others ask nothing.

        What was asked and found is theirs when the block ends.
        """
        some = self.take(rows)
        yield some
        self.ledger.write(rows, some.ledger)

    def gradient(self, adv: Tensor, y: Tensor, loss: Objective) -> Tensor:
        """(N, C, H, W) the gradient of `loss` at `adv`. One forward and one backward pass.

        Raises:
            UnsupportedError: gradients may not be seen.
        """
        return self.value_and_gradient(adv, y, loss)[1]

    def value_and_gradient(self, adv: Tensor, y: Tensor, loss: Objective) -> tuple[Tensor, Tensor]:
        """(N,) `loss` and (N, C, H, W) its gradient. One forward and one backward pass.

        The loss rises towards success whether the goal is targeted or not. A component that is
        not finite counts as zero. A slot without budget gets a zero gradient.

        Raises:
            UnsupportedError: gradients may not be seen.
        """
        values: list[Tensor] = []

        def climb(logits: Tensor) -> list[Tensor]:
            each = loss(logits, y, targeted=self.targeted)
            values.append(each.detach())
            return [each]

        _, gradients = self._differentiate(adv, climb)
        return torch.stack(values).mean(0), gradients[:, 0]

    def gradients(
        self, adv: Tensor, directions: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits at `adv` (N, ...), and gradients of several weighted sums of them.

        Args:
            adv: (N, ...) proposals.
            directions: from logits (N, K) to weights (N, R, K), R the same for every call.

        Returns:
            (N, K) logits and (N, R, C, H, W): of each sum over classes of weight times logit, the
            gradient. One forward and R backward passes; zeros for a slot without budget.

        Raises:
            UnsupportedError: gradients may not be seen.
        """

        def weigh(logits: Tensor) -> list[Tensor]:
            weights = directions(logits.detach())
            return list((weights * logits[:, None, :]).sum(2).unbind(1))

        return self._differentiate(adv, weigh)

    def check(self, adv: Tensor) -> None:
        """Ask about a last proposal, whatever may be seen of the answer. One forward pass."""
        surrogate, self.surrogate = self.surrogate, None
        self._ask(adv)
        self.surrogate = surrogate

    def take(self, index: Tensor, more: Oracle[T] | None = None) -> Oracle[T]:
        """The same view for some of the slots (repeats allowed), and then for those of `more`."""
        if more is None:
            x, y, ledger = self.x[index], self.y[index], self.ledger.take(index)
        else:
            x, y = rows_of(self.x, index, more.x), rows_of(self.y, index, more.y)
            ledger = self.ledger.take(index, more.ledger)
        view: Oracle[T] = Oracle.__new__(Oracle)
        vars(view).update(vars(self) | {"x": x, "y": y, "ledger": ledger})
        return view

    def _require(self, needed: Access, what: str) -> None:
        if self.access < needed:
            raise UnsupportedError(
                f"the attack asked for {what}, but the threat and the classifier give "
                f"{self.access.name.lower()} only; choose an attack that needs no more"
            )

    def _ask(self, adv: Tensor) -> Tensor:
        return self._answers(adv)[0]

    def _answers(self, adv: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) or (N, Q, K) logits, zeros where the budget does not reach; did it reach?"""
        several = adv.ndim > self.ledger.adv.ndim
        asked = adv.shape[1] if several else 1
        slot, number = self._spend(asked)
        points = adv.detach() if several else adv.detach()[:, None]
        answers = torch.zeros(len(adv), asked, self.classes, device=adv.device)
        answered = torch.zeros(len(adv), asked, dtype=torch.bool, device=adv.device)
        if len(slot):
            answers[slot, number] = self._evaluate(points, slot, number)
            answered[slot, number] = True
        return (answers, answered) if several else (answers[:, 0], answered[:, 0])

    def _evaluate(self, points: Tensor, slot: Tensor, number: Tensor) -> Tensor:
        whole = len(slot) == points.shape[0] * points.shape[1]
        chosen = points.flatten(0, 1) if whole else points[slot, number]
        once = whole and points.shape[1] == 1
        images = self.threat.render(self.x if once else self.x[slot], chosen)
        logits = self.passes.logits(images, self._draws(slot, number))
        self._note(chosen, images, logits, slot)
        return logits

    def _differentiate(
        self, adv: Tensor, climb: Callable[[Tensor], list[Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """(N, K) logits and (N, R, C, H, W) gradients of what `climb` makes of the logits.

        `climb` sees the logits of all slots, with zeros for those without budget.
        """
        self._require(Access.GRADIENTS, "gradients")
        slot, number = self._spend(1)
        shape = self.x.shape[1:]
        if not len(slot):
            rows = len(climb(torch.zeros(len(adv), self.classes, device=adv.device)))
            nothing = torch.zeros(len(adv), self.classes, device=adv.device)
            return nothing, torch.zeros(len(adv), rows, *shape, device=adv.device)
        whole = len(slot) == len(adv)
        point = adv.detach() if whole else adv.detach()[slot]
        images = self.threat.render(self.x if whole else self.x[slot], point)

        def climb_all(logits: Tensor) -> list[Tensor]:
            if whole:
                return climb(logits)
            return climb(logits.new_zeros(len(adv), self.classes).index_copy(0, slot, logits))

        logits, slopes = self.passes.slopes(images, climb_all, self._draws(slot, number))
        self._charge_backwards(slot, slopes.shape[1])
        self._note(point, images, logits, slot)
        if whole:
            return logits, slopes
        answers = logits.new_zeros(len(adv), self.classes).index_copy(0, slot, logits)
        return answers, slopes.new_zeros(len(adv), *slopes.shape[1:]).index_copy(0, slot, slopes)

    def _draws(self, slot: Tensor, number: Tensor) -> Tensor | None:
        """(M,) random keys of questions, where the classifier draws."""
        if not self.passes.classifier.randomized:
            return None
        return self.ledger.questions(slot, number)

    def _charge_backwards(self, slot: Tensor, count: int) -> None:
        book = self.ledger
        charge = torch.zeros_like(book.backwards)
        charge[slot] = count * self.passes.eot
        self.ledger = replace(book, backwards=book.backwards + charge)

    def _spend(self, asked: int) -> tuple[Tensor, Tensor]:
        """The slot and the number of each question that may be asked, now charged for."""
        told = self.surrogate is None
        self.ledger, slot, number = self.ledger.charge(
            asked,
            self.passes.eot if told else 0,
            capped=told and self.threat.queries is not None,
        )
        return slot, number

    def _note(self, point: Tensor, images: Tensor, logits: Tensor, slot: Tensor) -> None:
        """Write down which of the evaluated proposals (images as they were shown) fooled."""
        if self.surrogate is not None:
            return
        hit, missed = standing(logits, self.y[slot], targeted=self.targeted)
        self.ledger.invalid[slot[missed == torch.inf]] = True
        if not self.minimal:
            self.ledger.gap.scatter_reduce_(0, slot, missed / self.ledger.span[slot], "amin")
        if bool(hit.any()):
            where = hit.nonzero().flatten()
            shown = (images if point.shape == images.shape else point)[where]
            slot, deeper = slot[where], None
            if self.target.eot > 1 and not self.minimal:  # an average just past the border is luck
                deeper = missed[where] / self.ledger.span[slot] <= self.ledger.gap[slot]
            note = self.ledger.note
            note(self.threat, self.x, shown, slot, smallest=self.minimal, deeper=deeper)
