"""A model that attacks and judges can talk to: images in [0, 1] in, logits out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustbench_lite.errors import InputError, WrongModelError
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Access


class Classifier(nn.Module):
    """Wraps a module so that everybody sees pixels in [0, 1] and logits of shape (N, classes).

    Args:
        model: maps images (N, C, H, W) to logits (N, K), K >= 2. It is never changed.
        mean: per-channel mean that the model's inputs are normalised with; None for none.
        std: per-channel standard deviation, given together with `mean`.
        bounds: the pixel range that the model was trained on, before `mean` and `std`.
        classes: class names, if known.
        access: the most that this classifier can give (a scores-only one has no gradients).
        name: what tables call it.

    Attributes:
        randomized: equal images can get unequal logits; `forward` takes the random numbers as a
            second argument, so that attackers average over draws and every draw can be repeated.
        averages: each answer is an average over draws already, so attackers need not average.
        naive: attackers are given a gradient that does not know of the defense.

    Raises:
        InputError: only one of `mean` and `std` is given, a std is not positive, or the bounds are
            not increasing.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        classes: Sequence[str] | None = None,
        access: Access = Access.GRADIENTS,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise InputError("mean and std go together; give both or neither")
        if not bounds[0] < bounds[1]:
            raise InputError(f"bounds are {bounds}; give (low, high) with low < high")
        if std is not None and not all(s > 0 for s in std):
            raise InputError(f"std is {tuple(std)}; every channel needs a positive number")
        self.model = model
        self.bounds = bounds
        self.classes = None if classes is None else tuple(classes)
        self.access = access
        self.name = name or type(model).__name__
        low, high = bounds
        scale = torch.full((1, 1, 1), high - low)
        shift = torch.full((1, 1, 1), low)
        if mean is not None and std is not None:
            spread = torch.tensor(list(std)).reshape(-1, 1, 1)
            shift = (shift - torch.tensor(list(mean)).reshape(-1, 1, 1)) / spread
            scale = scale / spread
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.plain = mean is None and bounds == (0.0, 1.0)

    scale: Tensor
    shift: Tensor
    plain: bool
    randomized: bool = False
    averages: bool = False
    naive: bool = False

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """Logits (N, K) float32 of images (N, C, H, W) in [0, 1].

        `rng` gives the random numbers of a randomized classifier; None draws them anew.

        Raises:
            WrongModelError: the model returned something else than (N, K) with K >= 2.
        """
        logits = self._ask(x if self.plain else x * self.scale + self.shift, rng)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != x.shape[0]:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise WrongModelError(
                f"model {self.name!r} returned {got} for {x.shape[0]} images; "
                "it must return logits of shape (N, classes)"
            )
        if logits.shape[1] < 2:
            raise WrongModelError(
                f"model {self.name!r} has one output; "
                "return two logits for a two-class problem, for example (-z, z)"
            )
        return logits.float()

    def _ask(self, x: Tensor, rng: Rng | None) -> object:
        inner = self.model
        randomized = isinstance(inner, Classifier) and inner.randomized
        return inner(x, rng) if randomized else inner(x)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are (the CPU if it has none)."""
        first = next(self.model.parameters(), None)
        return self.scale.device if first is None else first.device


class Remembering(nn.Module):
    """A module that answers from memory what it was asked before.

    Attributes:
        afresh: every further time that it is asked about an image it is to find a new answer.
    """

    afresh: bool = False


def ask_afresh(model: nn.Module, afresh: bool) -> None:
    """Have all modules that remember their answers find new ones from now on, or not any more."""
    for module in _remembering(model):
        module.afresh = afresh


def _remembering(model: nn.Module) -> list[Remembering]:
    return [module for module in model.modules() if isinstance(module, Remembering)]


def as_classifier(model: nn.Module) -> Classifier:
    """`model` itself if it is a Classifier, else a Classifier around it."""
    return model if isinstance(model, Classifier) else Classifier(model).to(_device_of(model))


def _device_of(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """In eval mode and without parameter gradients inside; exactly as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    asked = [(module, module.afresh) for module in _remembering(model)]
    try:
        model.eval()
        for p, _ in wanted:
            p.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for p, requires_grad in wanted:
            p.requires_grad_(requires_grad)
        for remembering, afresh in asked:
            remembering.afresh = afresh


def as_logarithms(probabilities: Tensor) -> Tensor:
    """At least the logarithm of the smallest float."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


class _Logarithms(nn.Module):
    """The logarithms of a model's outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(N, K)."""
        return as_logarithms(self.model(x))


def in_logs(classifier: Classifier) -> Classifier:
    """A classifier whose logits are the logarithms of the probabilities of `classifier`."""
    inner = _Logarithms(classifier)
    return Classifier(inner, access=classifier.access, name=classifier.name).to(classifier.device)
