"""What an attack claims about some of the samples; restarts run side by side where few are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attack import Attack, Stage
from robustbench_lite.classifier import Classifier
from robustbench_lite.data import Dataset, content_of
from robustbench_lite.doubts import EOT
from robustbench_lite.engine import Work, attack_all
from robustbench_lite.ledger import Ledger
from robustbench_lite.rng import key_of
from robustbench_lite.running import Precision, Progress, Settings
from robustbench_lite.tally import Tally
from robustbench_lite.threat import Threat

_NARROW = 8  # an eighth of the batch is where a sample begins to cost more than in a full one


@dataclass(frozen=True, eq=False)
class Search:
    """How samples are attacked in one evaluation.

    Attributes:
        threat: what the attacker may do.
        data: the samples.
        targets: (N,) the class to leave or, with a targeted goal, the class to reach.
        attackable: (N,) bool: who is attacked at all.
        tally: what is known of the samples; only read here.
        classes: how many logits the model gives.
        span: (N,) what gaps are measured in.
        targeted: is there a class to reach?
        random: the model answers at random, so that gradients are averaged.
        source: a model that is asked instead.
        seed: of all random numbers.
        settings: how to run.
        report: called as samples finish.
    """

    threat: Threat
    data: Dataset
    targets: Tensor
    attackable: Tensor
    tally: Tally
    classes: int
    span: Tensor
    targeted: bool
    random: bool
    source: Classifier | None
    seed: int
    settings: Settings
    report: Callable[[Progress], None] | None

    def in_turn(
        self, stage: Stage, restarts: range, classifier: Classifier
    ) -> Iterator[tuple[int, Tensor, Ledger]]:
        """The attack of `stage` several times, each on what the former ones have left.

        The first time comes alone: what it leaves is seldom broken by the others.

        Yields:
            The number of the restart, the samples (M,) that go through it and their ledger; what
            holds of it has to be in the tally when the next is asked for.
        """
        first = restarts[:1]
        while restarts:
            rows = self._going_on(stage).nonzero().flatten()
            if not len(rows):
                return
            together = 1 if restarts[:1] == first else self._at_once(stage.attack, len(rows))
            wave, restarts = restarts[:together], restarts[together:]
            claimed = torch.zeros(len(rows), dtype=torch.bool)
            for number, claims in zip(
                wave, self.claims(stage.attack, wave, rows, classifier), strict=True
            ):
                on = self._going_on(stage)[rows]
                lost = (on & claimed).nonzero().flatten()  # given up for a claim that did not hold
                if len(lost):
                    anew = self.claims(stage.attack, [number], rows[lost], classifier)
                    claims.write(lost, anew[0])
                claimed |= claims.found
                yield number, rows[on], claims.take(on.nonzero().flatten())

    def _going_on(self, stage: Stage) -> Tensor:
        return self.attackable & self.tally.going_on(stage)

    def _at_once(self, attack: Attack, samples: int) -> int:
        """How many restarts may run side by side on so many samples.

        More than one where they come to what they would in turn, and where the batch would be
        narrow, which is when what is given up after an earlier success costs next to nothing.
        """
        alone = attack.minimal or self.random or self.threat.queries is not None
        if alone or not self.settings.early_leave:
            return 1
        width = self.settings.width
        return max(1, (width if self.settings.exact else width // _NARROW) // samples)

    def claims(
        self,
        attack: Attack,
        restarts: Sequence[int],
        rows: Tensor,
        classifier: Classifier,
        attempt: int = 0,
    ) -> list[Ledger]:
        """Attack the samples `rows` (M,) once for each of the numbers `restarts`.

        After an attempt that did not hold, `attempt` counts from 1: the search is then exact.

        Returns:
            A ledger of M rows for each restart. Those of a sample that follow one in which
            something was found are not to be used: they may have been given up.
        """
        name, settings = type(attack).__name__, self.settings
        if attempt:
            settings = replace(settings, precision=Precision.FLOAT32)
        again = (attempt,) if classifier.randomized or self.random else ()
        contents = [content_of(self.data.ids[i]) for i in rows.tolist()]
        keys = [key_of(self.seed, c, name, r, *again) for r in restarts for c in contents]
        work = Work(
            x=self.data.x[rows],
            y=self.targets[rows],
            keys=torch.tensor(keys),
            budget=self.tally.best.budget[rows],
            classes=self.classes,
            targeted=self.targeted,
            eot=EOT if self.random else 1,
            surrogate=self.source,
            span=self.span[rows],
        )
        done = fooled = 0
        base = int((self.tally.correct & ~self.tally.broken).sum())

        def advance(more: int, more_fooled: int) -> None:
            nonlocal done, fooled
            done, fooled = done + more, fooled + more_fooled
            if self.report is not None:
                self.report(Progress(done, len(work), base - fooled))

        found = attack_all(attack, classifier, self.threat, work, settings, advance)
        return [found.take(part) for part in torch.split(torch.arange(len(work)), len(rows))]
