"""What each slot of an attack asked and found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.rng import numbered
from robustbench_lite.threat import Threat, measured


@dataclass
class Ledger:
    """One row a slot.

    Attributes:
        adv: (N, ...) best adversarial proposal so far, the threat's origin where there is none.
        size: (N,) float64 its size, inf where there is none.
        queries: (N,) int64 forward passes.
        backwards: (N,) int64 backward passes.
        budget: (N,) int64 forward passes left.
        invalid: (N,) bool: some logit was NaN or infinite.
        keys: (N,) int64 that decide, with `asked`, the random numbers of a randomized classifier.
        asked: (N,) int64 questions so far, whether they were charged for or not.
        span: (N,) what gaps are measured in: the span of the logits of the image itself.
        gap: (N,) by how much success was missed at the best proposal, in units of `span`; inf where
            none was asked about, and for attacks that shrink the perturbation.
        gap_before: (N,) the same ten steps before the attack's last, inf before that.
        trace: (N, T) what the attack tells of its course, NaN where it did not get to; T may be 0.
    """

    adv: Tensor
    size: Tensor
    queries: Tensor
    backwards: Tensor
    budget: Tensor
    invalid: Tensor
    keys: Tensor
    asked: Tensor
    span: Tensor
    gap: Tensor
    gap_before: Tensor
    trace: Tensor

    @staticmethod
    def blank(
        threat: Threat,
        x: Tensor,
        budget: Tensor,
        keys: Tensor | None = None,
        span: Tensor | None = None,
    ) -> Ledger:
        """The ledger of slots that asked nothing yet."""
        n, device = len(x), x.device
        zeros = torch.zeros(n, dtype=torch.int64, device=device)
        return Ledger(
            adv=threat.origin(x).clone(),
            size=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            queries=zeros,
            backwards=zeros.clone(),
            budget=budget.to(device),
            invalid=torch.zeros(n, dtype=torch.bool, device=device),
            keys=zeros.clone() if keys is None else keys.to(device),
            asked=zeros.clone(),
            span=torch.ones(n, device=device) if span is None else span.to(device),
            gap=torch.full((n,), torch.inf, device=device),
            gap_before=torch.full((n,), torch.inf, device=device),
            trace=torch.zeros(n, 0, device=device),
        )

    @property
    def found(self) -> Tensor:
        """(N,) bool: an adversarial example was seen."""
        return self.size < torch.inf

    def take(self, index: Tensor, more: Ledger | None = None) -> Ledger:
        """Some of the rows (repeats allowed), and then those of `more`."""
        theirs = {} if more is None else vars(more)
        return Ledger(*(rows_of(mine, index, theirs.get(k)) for k, mine in vars(self).items()))

    def charge(self, asked: int, passes: int, *, capped: bool) -> tuple[Ledger, Tensor, Tensor]:
        """Charge every slot for `asked` questions of so many passes, as far as its budget goes.

        Returns:
            The new ledger; and for each question that may be asked the slot's position, and the
            question's number from 0.
        """
        n, device = len(self.queries), self.queries.device
        slot = torch.arange(n, device=device).repeat_interleave(asked)
        number = torch.arange(asked, device=device).repeat(n)
        cost = torch.full_like(self.queries, asked * passes)
        if capped:
            able = (self.budget // passes).clamp(min=0, max=asked)
            cost = able * passes
            allowed = number < able[slot]
            slot, number = slot[allowed], number[allowed]
        charged = replace(
            self,
            queries=self.queries + cost,
            budget=self.budget - cost,
            asked=self.asked + asked,
        )
        return charged, slot, number

    def questions(self, slot: Tensor, number: Tensor) -> Tensor:
        """(M,) int64 random keys of questions just charged for: the slot's, and their number."""
        return numbered(self.keys[slot], self.asked[slot] - number)

    def write(self, rows: Tensor, other: Ledger) -> None:
        """Put the rows of `other` in the places `rows`."""
        if other.trace.shape[1] > self.trace.shape[1]:
            width = other.trace.shape[1]
            self.trace = torch.full((len(self.size), width), torch.nan, device=self.size.device)
        for name, whole in vars(self).items():
            whole[rows] = getattr(other, name).to(whole.device)

    def note(
        self,
        threat: Threat,
        x: Tensor,
        adv: Tensor,
        rows: Tensor,
        *,
        smallest: bool,
        deeper: Tensor | None = None,
    ) -> None:
        """Keep of the adversarial proposals the one that counts for each slot.

        Args:
            threat: measures them.
            x: (N, C, H, W) the slots' images.
            adv: (M, ...) proposals that fool the classifier, in the order of the questions.
            rows: (M,) whose slot each is; a slot may come several times.
            smallest: keep the smallest; else the first that the threat contains.
            deeper: (M,) bool: which take the place of an earlier one all the same.
        """
        if not smallest:
            open_ = ~self.found[rows] if deeper is None else ~self.found[rows] | deeper
            deeper = None if deeper is None else deeper[open_]
            adv, rows = adv[open_], rows[open_]
        if not len(rows):
            return
        if smallest:
            size = threat.size(x[rows], adv)
            good = size < self.size[rows]
            order = size.argsort(descending=True, stable=True)
        else:
            size, good = measured(threat, x[rows], adv)
            order = torch.arange(len(rows), device=rows.device).flip(0)
            if deeper is not None:
                order = order[deeper[order].argsort(stable=True)]
        order = order[good[order]]
        if len(order) > 1:  # of several writes to one place, which one lasts is not defined
            order = order[_last_of_each(rows[order])]
        rows = rows[order]
        self.adv[rows], self.size[rows] = adv[order], size[order]


def rows_of(values: Tensor, index: Tensor, more: Tensor | None) -> Tensor:
    """The rows `index` (M,) of `values` (N, ...) and then `more` (K, ...), copied once."""
    if more is None:
        return values[index]
    count = len(index)
    rows = values.new_empty(count + len(more), *values.shape[1:])
    torch.index_select(values, 0, index.to(values.device), out=rows[:count])
    rows[count:] = more
    return rows


def _last_of_each(values: Tensor) -> Tensor:
    """The last position of each different value."""
    ordered, where = values.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return where[last]
