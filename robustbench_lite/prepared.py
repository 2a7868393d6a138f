"""What the search asks instead of the model itself: a frozen copy that answers sooner."""

from __future__ import annotations

import copy
import logging
import time
import warnings

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from robustbench_lite.classifier import Classifier, borrowed
from robustbench_lite.errors import InputError
from robustbench_lite.loss import margin
from robustbench_lite.passes import Passes
from robustbench_lite.rng import Rng
from robustbench_lite.running import Settings, is_of_memory
from robustbench_lite.threat import Access

_AGREEMENT = 1e-4
_WIDTHS = 16
_CHANNELS_LAST_FROM = 16
_NARROWEST, _WIDEST = 32, 1024
_WORTH = 0.95  # of the time of a batch half as wide, an image


class _Prepared(nn.Module):
    """A frozen, folded copy that sees few different batch widths.

    Kernels are built anew for each width, which a shrinking batch would pay at every step; so the
    first images fill the batch up to a multiple of 16.
    """

    def __init__(self, model: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.model = model
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, x: Tensor) -> Tensor:
        filler = -len(x) % _WIDTHS if len(x) >= _WIDTHS else 0
        full = torch.cat([x, x[:filler].detach()]) if filler else x
        logits: Tensor = self.model(full.contiguous(memory_format=self.layout))
        return logits[: len(x)]


def _likes_channels_last(model: nn.Module, example: Tensor) -> bool:
    """Measured on CPUs: it wins for nets with batch norm from about 16 x 16 pixels on."""
    normed = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return normed and min(example.shape[2:]) >= _CHANNELS_LAST_FROM


def prepare(classifier: Classifier, example: Tensor, *, compiled: bool = False) -> Classifier:
    """A faster copy for attacking: batch norm folded, channels-last where it wins, frozen.

    The copy's logits on `example` (N, C, H, W) are compared with the original's; if they differ by
    more than 1e-4 of the largest logit, or the model cannot be traced, the original is used.

    Args:
        classifier: whom it answers for.
        example: (N, C, H, W) some images.
        compiled: torch.compile makes kernels for it first, which takes a minute or more.

    Returns:
        The copy, or `classifier` itself where the copy would not be the same function.

    Raises:
        InputError: it cannot be compiled here.
    """
    if classifier.access < Access.GRADIENTS or not len(example):
        return classifier
    with borrowed(classifier), torch.no_grad():
        try:
            copied = copy.deepcopy(classifier)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                folded = fuse(copied.model, inplace=True)
        except Exception:  # a foreign model may fail to trace in any way: slower, not wrong
            return classifier
        channels_last = _likes_channels_last(classifier, example)
        if channels_last:
            folded = folded.to(memory_format=torch.channels_last)
        copied.model = _Prepared(folded.eval().requires_grad_(False), channels_last)
        if compiled:
            _compile(copied.model, example)
        rngs = Rng(torch.arange(len(example))), Rng(torch.arange(len(example)))
        expected, got = classifier(example, rngs[0]), copied(example, rngs[1])
        tolerance = _AGREEMENT * expected.abs().max()
        same = bool(((expected - got).abs() <= tolerance).all())
    return copied if same else classifier


def _compile(prepared: _Prepared, example: Tensor) -> None:
    prepared.model = torch.compile(prepared.model, dynamic=True)  # type: ignore[assignment]  # callable like it
    chatty = logging.getLogger("torch.utils.cpp_extension")  # it says where it found no GPU
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        prepared(example)
    except Exception as error:  # compilers fail in ways of their own
        cause = str(error).strip().splitlines()[0]
        raise InputError(
            f"the model cannot be compiled here ({cause}); leave out --compile"
        ) from error
    finally:
        chatty.setLevel(level)


def best_width(classifier: Classifier, x: Tensor, settings: Settings) -> int:
    """How many images a batch should hold: twice as many as long as that is worth it.

    It is timed with a forward and, where there are gradients, a backward pass a batch. Outcomes do
    not depend on it.

    Args:
        classifier: who is asked.
        x: (N, C, H, W) the images, at least one.
        settings: where to compute.
    """
    best, least, width = min(_NARROWEST, len(x)), torch.inf, _NARROWEST
    while width <= min(_WIDEST, len(x)):
        try:
            seconds = _seconds_of(classifier, x[:width].to(settings.device)) / width
        except RuntimeError as error:
            if not is_of_memory(error):
                raise
            break
        if seconds > _WORTH * least:
            break
        best, least, width = width, seconds, 2 * width
    return best


def _seconds_of(classifier: Classifier, x: Tensor) -> float:
    passes, keys = Passes(classifier, len(x)), torch.arange(len(x), device=x.device)

    def once() -> float:
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        began = time.perf_counter()
        if classifier.access is Access.GRADIENTS:
            passes.slopes(x, lambda logits: [margin(logits, torch.zeros_like(keys))], keys)
        else:
            passes.logits(x, keys)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - began

    once()  # kernels are made for a width at its first use
    return min(once(), once())
