"""The only judge: evaluate(model, attack, threat, data) -> Outcome."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustbench_lite.attack import Attack, Plan
from robustbench_lite.classifier import Classifier, as_classifier, borrowed, in_logs
from robustbench_lite.clean import Clean
from robustbench_lite.data import Dataset, checked_for, content_of
from robustbench_lite.doubts import doubts_of
from robustbench_lite.errors import InputError
from robustbench_lite.evidence import Health, Randomness
from robustbench_lite.fit import as_seen, check_fit
from robustbench_lite.goal import Goal, Targeted, Untargeted
from robustbench_lite.health import IMAGES, health_of
from robustbench_lite.inference import Original, randomness_of
from robustbench_lite.ledger import Ledger
from robustbench_lite.passes import Passes
from robustbench_lite.prepared import best_width, prepare
from robustbench_lite.results import Outcome
from robustbench_lite.rng import key_of
from robustbench_lite.running import Precision, Progress, Settings, cuda_devices, halved
from robustbench_lite.search import Search
from robustbench_lite.tally import Tally
from robustbench_lite.threat import Access, Threat
from robustbench_lite.verifier import FIRST, Verifier

_RETRIES = 3  # of an attack whose claims about averages over draws do not hold
_EXAMPLES = 32


def evaluate(
    model: nn.Module,
    attack: Plan,
    threat: Threat,
    data: Dataset,
    *,
    goal: Goal | None = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int | None = 256,
    exact: bool = False,
    early_leave: bool = True,
    precision: Precision = Precision.FLOAT32,
    compiled: bool = False,
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
        batch_size: how many samples are attacked side by side; None for what a short probe finds.
        exact: results equal bit by bit for every batch size and order.
        early_leave: False goes on attacking fooled samples, which only costs time and queries.
            Where the model is random, it is never left early.
        precision: of the search; bf16 takes less time where the hardware has it, and finds nearly
            as much. Examples are verified in float32, and searched for in it where they fail.
        compiled: the search asks a copy made by torch.compile, for long runs on GPUs.
        report: called as samples finish.

    Returns:
        A record a sample, accuracies as shares with 95 % intervals, and every reason for doubt.

    Raises:
        InputError: data and model do not belong together, or batch_size is below 1.
        UnsupportedError: the attack cannot keep to the threat or needs more access than it gives.
        WrongModelError: the model does not return logits of shape (N, classes).
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more")
    classifier = as_classifier(model)
    aim = goal or Untargeted()
    source = None if surrogate is None else as_classifier(surrogate)
    check_fit(attack, threat, classifier, aim, source)
    settings = Settings(batch_size, exact, early_leave, precision, compiled, classifier.device)
    with (
        torch.random.fork_rng(devices=cuda_devices(classifier.device)),
        borrowed(classifier),
        nullcontext() if source is None else borrowed(source),
    ):
        torch.manual_seed(key_of("foreign randomness", seed))
        judge = _Judge(classifier, threat, data, aim, seed, settings, report, source)
        return judge.run(attack)


class _Judge:
    """One evaluation: the clean pass, the stages, the verification, the doubts."""

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
        self.original = Original(classifier, self.keys)
        asked = data.x, torch.arange(len(data)), "clean", settings
        self.clean = Clean(self.original.answer(*asked), data.y)
        self.classes = self.clean.logits.shape[1]
        checked_for(data, self.classes)
        self.randomness = randomness_of(classifier, data.x, self.clean.logits, settings)
        self.random = self.randomness in (Randomness.DECLARED, Randomness.FOUND)
        self.draws = self.random or (classifier.randomized and not classifier.averages)
        correct = self.clean.correct
        if self.draws:
            votes = [v.argmax(1) == data.y for v in self.original.answers(*asked, FIRST)]
            correct = torch.stack(votes).sum(0) * 2 > len(votes)
        self.tally = Tally(threat, data.x, correct & self.clean.finite, self.clean.finite)
        self.health: Health | None = None
        self.logarithms = self.clean.are_logarithms_better(classifier)
        self.span = self.clean.span(self.logarithms)
        self.targets = data.y
        self.attackable = self.tally.correct.clone()
        if isinstance(goal, Targeted):
            self.targets = goal.labels(data, self.classes, seed)
            self.attackable &= self.targets != data.y
        self.disagreed = self.unverified = 0
        self.ran: list[Attack] = []

    def run(self, plan: Plan) -> Outcome:
        example = self.data.x[:_EXAMPLES].to(self.settings.device)
        foreign = self.random and not self.classifier.randomized
        compiled = self.settings.compiled
        fast = self.classifier if foreign else prepare(self.classifier, example, compiled=compiled)
        if self.logarithms:
            fast = in_logs(fast)
        if self.source is not None:
            self.source = prepare(self.source, example, compiled=compiled)
        if self.settings.batch_size is None:
            width = best_width(self.source or fast, self.data.x, self.settings)
            self.settings = replace(self.settings, batch_size=width)
        stages = plan.stages(as_seen(self.threat, self.classifier, self.source))
        self.ran = [stage.attack for stage in stages]
        hidden = self._probe(self.ran, fast)
        search, self.verifier = self._search(), self._verifier()
        runs: Counter[str] = Counter()
        for stage, same in itertools.groupby(stages):
            kind, count = type(stage.attack).__name__, len(list(same))
            if hidden or not stage.hidden:
                numbers = range(runs[kind], runs[kind] + count)
                for number, rows, claims in search.in_turn(stage, numbers, fast):
                    self._settle(search, stage.attack, number, rows, claims, fast)
            runs[kind] += count
        return self._outcome(plan)

    def _verifier(self) -> Verifier:
        return Verifier(
            original=self.original,
            threat=self.threat,
            x=self.data.x,
            targets=self.targets,
            targeted=isinstance(self.goal, Targeted),
            draws=self.draws,
            random=self.random,
            settings=self.settings,
        )

    def _search(self) -> Search:
        return Search(
            threat=self.threat,
            data=self.data,
            targets=self.targets,
            attackable=self.attackable,
            tally=self.tally,
            classes=self.classes,
            span=self.span,
            targeted=isinstance(self.goal, Targeted),
            random=self.random,
            source=self.source,
            seed=self.seed,
            settings=self.settings,
            report=self.report,
        )

    def _probe(self, attacks: Sequence[Attack], fast: Classifier) -> bool:
        """Do gradients mislead? Asked where somebody follows them."""
        if self.source is not None or self.random or self.classifier.naive:
            return False
        if not bool(self.tally.finite.any()):
            return False
        if not any(attack.needs is Access.GRADIENTS for attack in attacks):
            return False
        some = self.keys.argsort()[:IMAGES]  # whatever the order of the samples
        asked = Passes(fast, IMAGES)
        try:
            near = self.data.x[some].to(self.settings.device)
            self.health = health_of(asked, near, self.keys[some])
        except RuntimeError as error:
            halved(replace(self.settings, batch_size=1), error)
            raise
        return self.health.hidden

    def _settle(
        self,
        search: Search,
        attack: Attack,
        restart: int,
        rows: Tensor,
        claims: Ledger,
        fast: Classifier,
    ) -> None:
        """Verify what is claimed, and attack again where a claim does not hold."""
        exactly = self.settings.precision is Precision.FLOAT32
        asked = [fast] if fast is self.classifier and exactly else [fast, self.classifier]
        asked += [self.classifier] * (_RETRIES if self.classifier.averages else 0)
        for attempt, classifier in enumerate(asked):
            if not len(rows):
                return
            if attempt:
                claims = search.claims(attack, [restart], rows, classifier, attempt)[0]
            self.tally.add(attack, rows, claims)
            verified = self._keep_verified(attack, (restart, attempt), rows, claims)
            rows = rows[claims.found & ~verified]
            if classifier is not self.classifier and not self.draws and exactly:
                self.disagreed += len(rows)
        self.unverified += len(rows)

    def _keep_verified(
        self, attack: Attack, run: tuple[int, int], rows: Tensor, claims: Ledger
    ) -> Tensor:
        """Ask the original model about every claim; keep those that hold and are the smallest."""
        verified = torch.zeros(len(rows), dtype=torch.bool)
        claimed = claims.found.nonzero().flatten()
        if not len(claimed):
            return verified
        occasion = f"{type(attack).__name__} {run}"
        for part in torch.split(claimed, self.settings.width):  # copies of few images at a time
            at, adv = rows[part], claims.adv[part]
            label = self.verifier.classes_of(at, adv, occasion)
            verified[part] = label >= 0
            self.tally.keep(attack, at, adv, label)
        return verified

    def _outcome(self, plan: Plan) -> Outcome:
        tally = self.tally
        evidence = replace(
            self.clean.told(tally.evidence(self.classes, self.attackable)),
            naive=self.classifier.naive,
            randomness=self.randomness,
            health=self.health,
            blind=any(a.needs is not Access.GRADIENTS for a in self.ran),
            disagreed=self.disagreed,
            unverified=self.unverified,
        )
        images = self.threat.render(self.data.x, tally.best.adv)
        return Outcome(
            model=self.classifier.name,
            attack=str(plan) if self.source is None else f"{plan} on {self.source.name}",
            threat=self.threat,
            data=self.data.name,
            goal=str(self.goal),
            seed=self.seed,
            seconds=time.perf_counter() - self.started,
            records=tally.records(self.data.ids, self.data.y),
            adversarials=torch.where(tally.broken.reshape(-1, 1, 1, 1), images, self.data.x),
            evidence=evidence,
            doubts=doubts_of(evidence),
            steps=max((a.steps for a in self.ran if a.needs is Access.GRADIENTS), default=0),
            precision=self.settings.precision,
        )
