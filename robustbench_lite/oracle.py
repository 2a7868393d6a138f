"""What one attack sees of a classifier, and the ledger of what it asked and found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from robustbench_lite.classifier import Classifier
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.loss import Loss
from robustbench_lite.threat import Access, Threat

_UNLIMITED = 2**62


@dataclass
class Ledger:
    """One row a slot.

    Attributes:
        adv: (N, C, H, W) best adversarial example so far, x where there is none.
        size: (N,) float64 its size, inf where there is none.
        queries: (N,) int64 forward passes.
        backwards: (N,) int64 backward passes.
        budget: (N,) int64 forward passes left.
        invalid: (N,) bool: some logit was NaN or infinite.
    """

    adv: Tensor
    size: Tensor
    queries: Tensor
    backwards: Tensor
    budget: Tensor
    invalid: Tensor

    @staticmethod
    def blank(x: Tensor, budget: Tensor) -> Ledger:
        """The ledger of slots that asked nothing yet."""
        n, device = len(x), x.device
        zeros = torch.zeros(n, dtype=torch.int64, device=device)
        return Ledger(
            adv=x.clone(),
            size=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            queries=zeros,
            backwards=zeros.clone(),
            budget=budget.to(device),
            invalid=torch.zeros(n, dtype=torch.bool, device=device),
        )

    @property
    def found(self) -> Tensor:
        """(N,) bool: an adversarial example was seen."""
        return self.size < torch.inf


T = TypeVar("T", bound=Threat)


class Oracle(Generic[T]):
    """One attack's view of a classifier for the slots of a batch.

    It gives no more than the threat's access, counts every pass a sample, stops at the threat's
    query cap (a slot without budget is not evaluated any more: it gets zeros and leaves), averages
    random classifiers over `eot` passes, and notes by itself when a query fools the classifier.
    Whatever is asked is clipped to the box first.

    Attributes:
        threat: what the attacker may do; its geometry serves every norm.
        classes: how many logits the classifier gives.
        targeted: y is the class to reach, not the class to leave.
    """

    def __init__(
        self,
        classifier: Classifier,
        threat: T,
        x: Tensor,
        y: Tensor,
        classes: int,
        *,
        targeted: bool = False,
        minimal: bool = False,
        budget: Tensor | None = None,
        eot: int = 1,
    ) -> None:
        unlimited = torch.full((len(x),), _UNLIMITED, dtype=torch.int64)
        self.classifier = classifier
        self.threat = threat
        self.classes = classes
        self.targeted = targeted
        self.minimal = minimal
        self.eot = eot
        self.x = x
        self.y = y
        self.ledger = Ledger.blank(x, unlimited if budget is None else budget)

    @property
    def access(self) -> Access:
        """What may be asked: the least of what the threat and the classifier give."""
        return min(self.threat.access, self.classifier.access)

    @property
    def best(self) -> Tensor:
        """(N, C, H, W) each slot's best adversarial example so far, x where there is none."""
        return self.ledger.adv

    def logits(self, adv: Tensor) -> Tensor:
        """(N, K) logits at `adv` (N, C, H, W). One forward pass.

        Raises:
            UnsupportedError: only decisions may be seen.
        """
        self._require(Access.SCORES, "scores")
        return self._ask(adv)

    def labels(self, adv: Tensor) -> Tensor:
        """(N,) predicted classes at `adv` (N, C, H, W). One forward pass."""
        return self._ask(adv).argmax(1)

    def gradient(self, adv: Tensor, y: Tensor, loss: Loss) -> Tensor:
        """(N, C, H, W) the gradient of `loss` at `adv`. One forward and one backward pass.

        Raises:
            UnsupportedError: gradients may not be seen.
        """
        return self.value_and_gradient(adv, y, loss)[1]

    def value_and_gradient(self, adv: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(N,) `loss` and (N, C, H, W) its gradient. One forward and one backward pass.

        The loss rises towards success whether the goal is targeted or not. A component that is
        not finite counts as zero.

        Raises:
            UnsupportedError: gradients may not be seen.
        """
        self._require(Access.GRADIENTS, "gradients")
        live = self._spend(backward=True)
        if live is not None and not len(live):
            return torch.zeros(len(adv), device=adv.device), torch.zeros_like(adv)
        point = adv.detach().clamp(0, 1)
        rows = point if live is None else point[live]
        labels = y if live is None else y[live]
        values, gradients, logits = self._differentiate(rows, labels, loss)
        if live is not None:
            values = torch.zeros(len(adv), device=adv.device).index_copy(0, live, values)
            gradients = torch.zeros_like(point).index_copy(0, live, gradients)
        self._note(point, logits, live)
        return values, gradients

    def take(self, index: Tensor) -> Oracle[T]:
        """The same view for some of the slots (repeats allowed)."""
        return self._with(
            self.x[index], self.y[index], Ledger(*(v[index] for v in vars(self.ledger).values()))
        )

    def join(self, other: Oracle[T]) -> Oracle[T]:
        """The same view for these slots and those of `other`."""
        pairs = zip(vars(self.ledger).values(), vars(other.ledger).values(), strict=True)
        ledger = Ledger(*(torch.cat(pair) for pair in pairs))
        return self._with(torch.cat([self.x, other.x]), torch.cat([self.y, other.y]), ledger)

    def check(self, adv: Tensor) -> None:
        """Ask about a last proposal, whatever may be seen of the answer. One forward pass."""
        self._ask(adv)

    def _with(self, x: Tensor, y: Tensor, ledger: Ledger) -> Oracle[T]:
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
        live = self._spend(backward=False)
        if live is not None and not len(live):
            return torch.zeros(len(adv), self.classes, device=adv.device)
        point = adv.detach().clamp(0, 1)
        with torch.no_grad():
            asked = point if live is None else point[live]
            logits: Tensor = self.classifier(asked)
            for _ in range(self.eot - 1):
                logits = logits + self.classifier(asked)
            logits = logits / self.eot
        self._note(point, logits, live)
        if live is None:
            return logits
        return logits.new_zeros(len(adv), logits.shape[1]).index_copy(0, live, logits)

    def _differentiate(
        self, rows: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = torch.zeros(len(rows), device=rows.device)
        gradients = torch.zeros_like(rows)
        mean: Tensor | None = None
        for _ in range(self.eot):
            leaf = rows.detach().requires_grad_(True)
            with torch.enable_grad():
                logits = self.classifier(leaf)
                if not logits.requires_grad:
                    raise UnsupportedError(
                        f"model {self.classifier.name!r} gives no gradient; wrap it in "
                        "Classifier(access=Access.SCORES) and choose an attack that needs no more"
                    )
                each = loss(logits, labels, targeted=self.targeted)
                (gradient,) = torch.autograd.grad(each.sum(), leaf)
            values = values + each.detach() / self.eot
            gradients = gradients + gradient / self.eot
            part = logits.detach() / self.eot
            mean = part if mean is None else mean + part
        assert mean is not None  # eot >= 1
        return values, torch.nan_to_num(gradients, 0.0, 0.0, 0.0), mean

    def _spend(self, *, backward: bool) -> Tensor | None:
        """Charge every slot with a budget; the rows to evaluate, None for all of them."""
        book = self.ledger
        if self.threat.queries is None:
            charge = torch.full_like(book.queries, self.eot)
            live = None
        else:
            able = book.budget >= self.eot
            charge = able.long() * self.eot
            live = None if bool(able.all()) else able.nonzero().flatten()
        self.ledger = replace(
            book,
            queries=book.queries + charge,
            backwards=book.backwards + (charge if backward else 0),
            budget=book.budget - charge,
        )
        return live

    def _note(self, point: Tensor, logits: Tensor, live: Tensor | None) -> None:
        """Write down which of the evaluated rows fooled the classifier."""
        book = self.ledger
        y = self.y if live is None else self.y[live]
        finite = torch.isfinite(logits).all(1)
        reached = logits.argmax(1) == y
        hit = (reached if self.targeted else ~reached) & finite
        rows = torch.arange(len(point), device=point.device) if live is None else live
        book.invalid[rows[~finite]] = True
        if not self.minimal:
            hit = hit & ~book.found[rows]
        rows = rows[hit]
        if not len(rows):
            return
        x, adv = self.x[rows], point[rows]
        size = self.threat.size(x, adv)
        better = size < book.size[rows] if self.minimal else self.threat.contains(x, adv)
        rows, adv, size = rows[better], adv[better], size[better]
        book.adv[rows] = adv
        book.size[rows] = size
