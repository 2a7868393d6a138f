"""Do a model and data belong together, and is the model one that an evaluation can say much about?

Everything is measured on some samples: nothing is taken from what a model's maker says of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.clean import Clean
from robustbench_lite.data import Dataset
from robustbench_lite.errors import RblError
from robustbench_lite.evidence import Randomness
from robustbench_lite.health import IMAGES, health_of
from robustbench_lite.inference import predict, randomness_of
from robustbench_lite.loss import margin
from robustbench_lite.otherwise import prepared_otherwise
from robustbench_lite.passes import Passes
from robustbench_lite.prepared import prepare
from robustbench_lite.rng import key_of
from robustbench_lite.running import Settings
from robustbench_lite.stats import mcnemar, wilson
from robustbench_lite.threat import Access
from robustbench_lite.trust import Trust

_BATCH = 32
_BETTER = 0.05  # of the samples: what another preprocessing must add to be worth a word
_SURE = 0.01
_PER_CLASS = 4  # samples a class, below which any order of the classes fits well
_MATES = 1e-3  # of the largest logit


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what.
        found: what was seen.
        trust: `ok`; `warn`, look closer; `fail`, figures of this pair would say nothing.
        remedy: what to do, "" where there is nothing.
    """

    about: str
    found: str
    trust: Trust = Trust.OK
    remedy: str = ""


def diagnosed(classifier: Classifier, data: Dataset, seed: int = 0) -> Iterator[Finding]:
    """What there is to say of a model on some samples, one thing after the other.

    Args:
        classifier: which one, on its device. It is left as it was.
        data: some hundred samples.
        seed: of the directions in which gradients are probed.

    Raises:
        InputError: the model cannot take the images at all.
        WrongModelError: it does not answer with logits.
    """
    with borrowed(classifier):
        yield from _Diagnosis(classifier, data, seed).findings()


class _Diagnosis:
    def __init__(self, classifier: Classifier, data: Dataset, seed: int) -> None:
        self.classifier, self.data, self.seed = classifier, data, seed
        self.settings = Settings(_BATCH, device=classifier.device)
        self.keys = torch.tensor([key_of(seed, sample, "doctor") for sample in data.ids])
        self.logits = self._logits(classifier, data.x)
        self.clean = Clean(self.logits, data.y)

    def findings(self) -> Iterator[Finding]:
        yield self._of_images()
        yield self._of_outputs()
        labels = self._of_labels()
        yield labels
        if labels.trust is Trust.FAIL:
            return
        yield self._of_accuracy()
        for check in (self._of_order, self._of_preprocessing):
            if (finding := check()) is not None:
                yield finding
        yield self._of_randomness()
        yield self._of_company()
        if self.classifier.access is Access.GRADIENTS:
            yield self._of_gradients()
        yield self._of_speed()

    def _logits(self, classifier: Classifier, x: Tensor) -> Tensor:
        return predict(classifier, x, self.settings, self.keys[: len(x)])

    def _of_images(self) -> Finding:
        x = self.data.x
        shape = " x ".join(map(str, x.shape[1:]))
        told = f"{len(x)} of {shape}, pixels {x.min():.3g} to {x.max():.3g}"
        copies = len(x) - len({sample.partition("-")[0] for sample in self.data.ids})
        if float(x.max()) < 0.1:
            return Finding(
                "images", f"{told}: nearly black", Trust.WARN, "were they divided by 255 twice?"
            )
        if copies:
            return Finding("images", f"{told}; {copies} are copies of others")
        return Finding("images", told)

    def _of_outputs(self) -> Finding:
        told = f"{self.logits.shape[1]} logits, {self.logits.min():.3g} to {self.logits.max():.3g}"
        lost = int((~self.clean.finite).sum())
        if lost:
            return Finding(
                "outputs",
                f"{told}; NaN or infinite for {lost} of {len(self.logits)} images",
                Trust.FAIL,
                "repair the model: such samples never count as robust",
            )
        if self.clean.probabilities:
            return Finding(
                "outputs",
                f"{self.logits.shape[1]} probabilities",
                Trust.WARN,
                "return logits: the softmax hides gradients, and attacks have to undo it",
            )
        return Finding("outputs", told)

    def _of_labels(self) -> Finding:
        y, classes = self.data.y, self.logits.shape[1]
        largest, seen = int(y.max()), len(set(y.tolist()))
        if largest >= classes:
            return Finding(
                "labels",
                f"label {largest}, but the model knows 0 to {classes - 1}",
                Trust.FAIL,
                "give --class-map, or the data that the model was trained for",
            )
        names = self.data.classes
        named = f"; {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""
        return Finding("labels", f"{seen} of {classes} classes{named}")

    def _of_accuracy(self) -> Finding:
        right, n, classes = int(self.clean.correct.sum()), len(self.data), self.logits.shape[1]
        low, high = wilson(right, n)
        told = f"{100 * right / n:.1f} %, 95 % CI {100 * low:.1f} to {100 * high:.1f}"
        if low <= 1 / classes:
            return Finding(
                "clean accuracy",
                f"{told}: not above chance ({100 / classes:.2g} %)",
                Trust.FAIL,
                "check weights, --normalize, --resize and the order of the classes",
            )
        return Finding("clean accuracy", told)

    def _of_order(self) -> Finding | None:
        """Labels that are shifted, or classes in another order."""
        n, right = len(self.data), int(self.clean.correct.sum())
        for shift in (1, -1):
            moved = self.clean.off_by(shift)
            if moved > right and wilson(moved, n)[0] > max(0.3, wilson(right, n)[1]):
                return Finding(
                    "order of classes",
                    f"{100 * moved / n:.0f} % are taken for class label {shift:+d}",
                    Trust.FAIL,
                    "labels are shifted by one: give --class-map",
                )
        classes = self.logits.shape[1]
        if n < _PER_CLASS * classes:
            return None
        counts = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (self.data.y.numpy(), self.logits.argmax(1).numpy()), 1)
        rows, columns = linear_sum_assignment(counts, maximize=True)
        best = int(counts[rows, columns].sum())
        if wilson(best, n)[0] < wilson(right, n)[1] + 0.2:
            return None
        swapped = [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if a != b]
        a, b = max(swapped, key=lambda pair: int(counts[pair]))
        return Finding(
            "order of classes",
            f"{100 * best / n:.0f} % would be right in another order, with the data's class {a} "
            f"as the model's {b}",
            Trust.FAIL,
            "give --class-map with the model's class of each class of the data",
        )

    def _of_preprocessing(self) -> Finding | None:
        """Would the model be right more often about images that are prepared otherwise?"""
        right = self.clean.correct
        best, told = _BETTER * len(right), ""
        for name, asked, x in prepared_otherwise(self.classifier, self.data.x):
            then = self._logits(asked, x).argmax(1) == self.data.y
            more, less = int((then & ~right).sum()), int((right & ~then).sum())
            if more - less > best and mcnemar(more, less) < _SURE:
                best, told = more - less, name
        if not told:
            return None
        gain = 100 * best / len(right)
        return Finding(
            "preprocessing",
            f"{gain:.0f} points more are right with {told}",
            Trust.FAIL,
            f"give {told}" if told.startswith("--") else "change the model's preprocessing",
        )

    def _of_randomness(self) -> Finding:
        seen = randomness_of(self.classifier, self.data.x, self.logits, self.settings)
        if seen is Randomness.NONE:
            return Finding("randomness", "equal answers to equal images")
        return Finding(
            "randomness",
            "equal images get unequal answers",
            Trust.WARN,
            "gradients will be averaged and verdicts voted on; is dropout on?",
        )

    def _of_company(self) -> Finding:
        """Does an image's answer depend on the other images of its batch?"""
        some = self.data.x[:_BATCH]
        alone = [self._logits(self.classifier, image[None]) for image in some[:IMAGES]]
        apart = (torch.cat(alone) - self.logits[:IMAGES]).abs().max()
        if float(apart) > _MATES * float(self.logits[:IMAGES].abs().max()):
            return Finding(
                "company",
                "an image's logits depend on the others in its batch",
                Trust.FAIL,
                "is batch norm without running statistics? Figures would depend on the batch",
            )
        return Finding("company", "an image's logits do not depend on its batch")

    def _of_gradients(self) -> Finding:
        images = self.data.x[:IMAGES].to(self.settings.device)
        try:
            seen = health_of(Passes(self.classifier, IMAGES), images, self.keys[:IMAGES])
        except RblError as error:
            return Finding("gradients", str(error), Trust.FAIL)
        told = f"foretell differences of the margin with cosine {seen.agreement:.2f}"
        if seen.flat:
            told = f"are zero on {100 * seen.flat:.0f} % of the images"
        if not seen.hidden:
            return Finding("gradients", told)
        return Finding(
            "gradients",
            told,
            Trust.WARN,
            "they mislead: attacks without gradients will be added; see rbl show verdict",
        )

    def _of_speed(self) -> Finding:
        some = self.data.x[:_BATCH].to(self.settings.device)
        asked = prepare(self.classifier, some)
        passes, y = Passes(asked, len(some)), self.data.y[: len(some)].to(some.device)
        keys = self.keys[: len(some)].to(some.device)
        forward = _milliseconds(lambda: passes.logits(some, keys), len(some))
        told = f"forward {forward:.3g} ms an image"
        if self.classifier.access is not Access.GRADIENTS:
            return Finding("speed", told)
        pair = _milliseconds(
            lambda: passes.slopes(some, lambda logits: [margin(logits, y)], keys), len(some)
        )
        copied = "" if asked is self.classifier else " (of a faster copy)"
        told = f"{told}, with gradient {pair:.3g} ms{copied}"
        return Finding("speed", f"{told}: PGD-40 on 1,000 images takes {_duration(40 * pair)}")


def _milliseconds(call: Callable[[], object], images: int) -> float:
    call()  # kernels are made for a shape at its first use
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return 1000 * min(times) / images


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s at the most" if seconds < 120 else f"{seconds / 60:.0f} min at the most"
    )
