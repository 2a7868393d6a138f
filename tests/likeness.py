"""Is a classifier the same function as a library's own net with its own preprocessing?"""

from collections.abc import Callable

import torch
from rbl_attacks.fgsm import FGSM
from torch import Tensor
from torch.nn import functional

from robustbench_lite import Classifier, Dataset, Loss, Lp, Norm, evaluate

Net = Callable[[Tensor], Tensor]


def images(n: int, channels: int, rows: int, columns: int = 0) -> Tensor:
    """Of 8 bits, as floats in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    shape = (n, channels, rows, columns or rows)
    return torch.randint(0, 256, shape, generator=generator) / 255


def balance(net: Net, bias: Tensor, x: Tensor) -> None:
    """Shift the last bias so that no class of an untrained net wins whatever the image."""
    with torch.no_grad():
        bias -= net(x).mean(0)


def slope(net: Net, x: Tensor, y: Tensor) -> Tensor:
    """Of the largest other logit minus that of y, by torch alone."""
    seen = x.clone().requires_grad_()
    logits = net(seen)
    others = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    objective = others.amax(1) - logits.gather(1, y[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(objective.sum(), seen)
    return gradient


def check_same(classifier: Classifier, reference: Net, x: Tensor, eps: float = 0.3) -> None:
    """Equal logits and gradients, and FGSM goes torch's step and breaks both."""
    with torch.no_grad():
        theirs = reference(x)
        torch.testing.assert_close(classifier(x), theirs, rtol=1e-4, atol=1e-5)
    y = theirs.argmax(1)
    expected = slope(reference, x, y)
    assert expected.abs().max() > 0
    size = float(expected.abs().max())
    torch.testing.assert_close(slope(classifier, x, y), expected, rtol=1e-3, atol=1e-4 * size)
    outcome = evaluate(classifier, FGSM(loss=Loss.MARGIN), Lp(Norm.LINF, eps), Dataset(x, y))
    assert outcome.clean_accuracy == 1
    broken = torch.tensor([not record.robust for record in outcome.records])
    assert bool(broken.any())
    steep = (expected.abs() > 1e-3 * size)[broken]  # where the slope is nothing, either way is fine
    step, found = (x + eps * expected.sign()).clamp(0, 1)[broken], outcome.adversarials[broken]
    torch.testing.assert_close(found[steep], step[steep])
    with torch.no_grad():
        assert bool((reference(found).argmax(1) != y[broken]).all())
