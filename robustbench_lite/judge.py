"""The only judge: evaluate(model, attack, threat, data) -> Outcome."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_lite import doubts
from robustbench_lite.attack import Attack, Plan
from robustbench_lite.classifier import Classifier, as_classifier, borrowed, prepare
from robustbench_lite.data import Dataset, checked_for, content_of
from robustbench_lite.engine import Settings, Work, attack_all
from robustbench_lite.errors import InputError
from robustbench_lite.fit import check_fit
from robustbench_lite.goal import Goal, Targeted, Untargeted
from robustbench_lite.inference import predict
from robustbench_lite.ledger import Ledger
from robustbench_lite.loss import reached
from robustbench_lite.results import Outcome, Record
from robustbench_lite.rng import key_of, numbered
from robustbench_lite.threat import Threat

_EOT = 20
_EXAMPLES = 32
_UNLIMITED = 2**62
_NOT_FINITE = "the model returned NaN or infinite logits"


@dataclass(frozen=True)
class Progress:
    """Where an evaluation stands: samples attacked so far, all samples, still robust."""

    done: int
    total: int
    robust: int


def evaluate(
    model: nn.Module,
    attack: Plan,
    threat: Threat,
    data: Dataset,
    *,
    goal: Goal | None = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int = 256,
    exact: bool = False,
    early_leave: bool = True,
    report: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Attack what the model gets right and judge every adversarial example by the original model.

    The model is left exactly as it was. What comes out depends on the samples, the attack and the
    seed only; batch size and order change nothing but, through the rounding of floating point,
    samples whose margin is under 1e-4 (`exact` removes even that, at some cost of time).

    Args:
        model: a Classifier, or any module that maps images (N, C, H, W) in [0, 1] to logits.
        attack: an attack, Restarts or a Cascade.
        threat: what the attacker may do.
        data: the samples.
        goal: what counts as success; untargeted if None.
        surrogate: a model that the search asks instead, for a transfer attack: `model` is asked
            about each last proposal only, and needs to give no more than decisions.
        seed: of all random numbers.
        batch_size: how many samples are attacked side by side.
        exact: results equal bit by bit for every batch size and order.
        early_leave: False goes on attacking fooled samples, which only costs time and queries.
        report: called as samples finish.

    Raises:
        InputError: data and model do not belong together, or batch_size is below 1.
        UnsupportedError: the attack cannot keep to the threat or needs more access than it gives.
        WrongModelError: the model does not return logits of shape (N, classes).
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more")
    classifier = as_classifier(model)
    aim = goal or Untargeted()
    source = None if surrogate is None else as_classifier(surrogate)
    check_fit(attack, threat, classifier, aim, source)
    settings = Settings(batch_size, exact, early_leave, classifier.device)
    with (
        torch.random.fork_rng(devices=_cuda_devices(classifier.device)),
        borrowed(classifier),
        nullcontext() if source is None else borrowed(source),
    ):
        torch.manual_seed(key_of("foreign randomness", seed))
        judge = _Judge(classifier, threat, data, aim, seed, settings, report, source)
        return judge.run(attack)


def _cuda_devices(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


class _Judge:
    """One evaluation: the clean pass, the stages, the verification, the records."""

    def __init__(
        self,
        classifier: Classifier,
        threat: Threat,
        data: Dataset,
        goal: Goal,
        seed: int,
        settings: Settings,
        report: Callable[[Progress], None] | None,
        source: Classifier | None,
    ) -> None:
        self.classifier, self.threat, self.data = classifier, threat, data
        self.goal, self.seed, self.settings, self.report = goal, seed, settings, report
        self.source = source
        self.started = time.perf_counter()
        self.keys = torch.tensor([key_of(seed, content_of(i), "model") for i in data.ids])
        self.rounds = 0
        clean = predict(classifier, data.x, settings, self._draws())
        self.classes = clean.shape[1]
        checked_for(data, self.classes)
        self.finite = torch.isfinite(clean).all(1)
        self.correct = (clean.argmax(1) == data.y) & self.finite
        self.doubts = doubts.about_chance(self.correct, self.classes)
        self.random, more = doubts.about_randomness(classifier, data.x, clean, settings, _EOT)
        self.doubts += more
        self.targets = data.y
        self.attackable = self.correct.clone()
        if isinstance(goal, Targeted):
            self.targets = goal.labels(data, self.classes, seed)
            self.attackable &= self.targets != data.y
        n = len(data)
        self.best = Ledger.blank(threat, data.x, torch.full((n,), threat.queries or _UNLIMITED))
        self.broken = torch.zeros(n, dtype=torch.bool)
        self.traces: dict[int, tuple[float, ...]] = {}
        self.broken_by = [""] * n
        self.unverified = 0

    def _draws(self) -> Tensor:
        """(N,) int64 random keys of the samples for one more look of the judge."""
        self.rounds += 1
        return numbered(self.keys, torch.full_like(self.keys, self.rounds))

    def run(self, plan: Plan) -> Outcome:
        example = self.data.x[:_EXAMPLES].to(self.settings.device)
        foreign = self.random and not self.classifier.randomized
        fast = self.classifier if foreign else prepare(self.classifier, example)
        if self.source is not None:
            self.source = prepare(self.source, example)
        runs: Counter[str] = Counter()
        for attack in plan.stages():
            kind = type(attack).__name__
            rows = self._survivors(attack)
            if len(rows):
                self._stage(attack, runs[kind], rows, fast)
            runs[kind] += 1
        return self._outcome(plan)

    def _survivors(self, attack: Attack) -> Tensor:
        going_on = self.attackable & (self.best.budget > 0)
        if not attack.minimal:
            going_on = going_on & ~self.broken
        return going_on.nonzero().flatten()

    def _stage(self, attack: Attack, restart: int, rows: Tensor, fast: Classifier) -> None:
        claims = self._attack(attack, restart, rows, fast)
        verified = self._keep_verified(attack, rows, claims)
        lost = rows[claims.found & ~verified]
        if len(lost) and fast is not self.classifier:
            again = self._attack(attack, restart, lost, self.classifier)
            lost = lost[again.found & ~self._keep_verified(attack, lost, again)]
        self.unverified += len(lost)

    def _attack(self, attack: Attack, restart: int, rows: Tensor, classifier: Classifier) -> Ledger:
        name = type(attack).__name__
        parts = [self.data.ids[i] for i in rows.tolist()]
        keys = [key_of(self.seed, content_of(p), name, restart) for p in parts]
        work = Work(
            x=self.data.x[rows],
            y=self.targets[rows],
            keys=torch.tensor(keys),
            budget=self.best.budget[rows],
            classes=self.classes,
            targeted=isinstance(self.goal, Targeted),
            eot=_EOT if self.random else 1,
            surrogate=self.source,
        )
        done = fooled = 0
        base = int((self.correct & ~self.broken).sum())

        def advance(more: int, more_fooled: int) -> None:
            nonlocal done, fooled
            done, fooled = done + more, fooled + more_fooled
            if self.report is not None:
                self.report(Progress(done, len(rows), base - fooled))

        claims = attack_all(attack, classifier, self.threat, work, self.settings, advance)
        book = self.best
        book.queries[rows] += claims.queries
        book.backwards[rows] += claims.backwards
        book.budget[rows] -= claims.queries
        book.invalid[rows] |= claims.invalid
        for i, course in zip(rows.tolist(), claims.trace.tolist(), strict=True):
            if course:
                self.traces[i] = tuple(v for v in course if not math.isnan(v))
        return claims

    def _keep_verified(self, attack: Attack, rows: Tensor, claims: Ledger) -> Tensor:
        """Ask the original model about every claim; keep those that hold and are the smallest."""
        verified = torch.zeros(len(rows), dtype=torch.bool)
        claimed = claims.found.nonzero().flatten()
        if not len(claimed):
            return verified
        at, adv = rows[claimed], claims.adv[claimed]
        images = self.threat.render(self.data.x[at], adv)
        logits = predict(self.classifier, images, self.settings, self._draws()[at])
        success = reached(logits, self.targets[at], targeted=isinstance(self.goal, Targeted))
        boxed = (torch.isfinite(images) & (images >= 0) & (images <= 1)).flatten(1).all(1)
        holds = success & boxed
        verified[claimed] = holds
        at, adv = at[holds], adv[holds]
        size = self.threat.size(self.data.x[at], adv)
        better = size < self.best.size[at]
        at, adv, size = at[better], adv[better], size[better]
        self.best.adv[at], self.best.size[at] = adv, size
        inside = at[self.threat.contains(self.data.x[at], adv)]
        for i in inside[~self.broken[inside]].tolist():
            self.broken_by[i] = str(attack)
        self.broken[inside] = True
        return verified

    def _outcome(self, plan: Plan) -> Outcome:
        broken = self.broken
        invalid = self.best.invalid & ~broken
        if self.unverified:
            self.doubts.append(
                f"{self.unverified} adversarial examples did not fool the original model "
                "when it was asked again, and are not counted"
            )
        errors = int((~self.finite | (self.attackable & invalid)).sum())
        if errors:
            self.doubts.append(f"{errors} samples have no verdict: {_NOT_FINITE}")
        images = self.threat.render(self.data.x, self.best.adv)
        return Outcome(
            model=self.classifier.name,
            attack=str(plan) if self.source is None else f"{plan} on {self.source.name}",
            threat=self.threat,
            data=self.data.name,
            goal=str(self.goal),
            seed=self.seed,
            seconds=time.perf_counter() - self.started,
            records=self._records(broken, invalid),
            adversarials=torch.where(broken.reshape(-1, 1, 1, 1), images, self.data.x),
            doubts=tuple(self.doubts),
        )

    def _records(self, broken: Tensor, invalid: Tensor) -> tuple[Record, ...]:
        best, correct = self.best, self.correct
        failed = ~self.finite | (correct & invalid)
        robust = correct & ~broken & ~failed
        columns = (correct, robust, failed, best.size, best.queries, best.backwards)
        rows = zip(self.data.ids, self.data.y.tolist(), *(c.tolist() for c in columns), strict=True)
        return tuple(
            Record(
                id=key,
                label=label,
                correct=right,
                robust=holds,
                size=size if size < math.inf else None,
                queries=queries,
                backwards=backwards,
                attack=self.broken_by[i],
                error=_NOT_FINITE if error else "",
                trace=self.traces.get(i, ()),
            )
            for i, (key, label, right, holds, error, size, queries, backwards) in enumerate(rows)
        )
