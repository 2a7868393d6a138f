"""Certified training with interval bounds (Gowal et al. 2018, arXiv:1810.12715)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.classifier import Classifier
from robustbench_lite.defense import Training
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.rng import Rng
from robustbench_lite.threat import Lp, Norm


@dataclass(frozen=True)
class IBP(Training):
    """Cross-entropy on the image, and on the worst logits that interval arithmetic allows.

    For chains of convolutions, linear layers and ReLU, in Linf. Let eps rise slowly (--warmup), or
    nothing is learned.

    Args:
        kappa: weight of the image itself at the end of the warm-up, where the paper has 0.5; it
            begins at 1.
    """

    kappa: Annotated[float, Field(ge=0, le=1)] = 0.5

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, threat: Lp, rng: Rng) -> Tensor:
        """The weighted mean of both (equation 13).

        Raises:
            UnsupportedError: the norm is not Linf, or the model has another kind of layer.
        """
        if threat.norm is not Norm.LINF:
            raise UnsupportedError(f"ibp bounds Linf only, not {threat.norm}; give --norm linf")
        clean = functional.cross_entropy(model(x), y)
        worst = functional.cross_entropy(worst_margins(model, x, y, threat.eps), y)
        return self.kappa * clean + (1 - self.kappa) * worst


def worst_margins(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """(N, K) the largest that each logit can exceed the label's within eps (Linf) of x; 0 at y.

    The last layer is bounded for each difference of two logits (section 3 there: elision).

    Raises:
        UnsupportedError: a layer is not one of those that interval bounds are known for, or the
            last one is not linear.
    """
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    centre, radius = (high + low) / 2, (high - low) / 2
    inner = model
    if isinstance(model, Classifier):
        inner = model.model
        centre, radius = centre * model.scale + model.shift, radius * model.scale
    layers = [m for m in inner.modules() if not list(m.children())]
    if not isinstance(inner, nn.Sequential | nn.Linear) or not isinstance(layers[-1], nn.Linear):
        raise UnsupportedError("ibp takes chains of layers that end in a linear one; choose a cnn")
    for layer in layers[:-1]:
        centre, radius = _through(layer, centre, radius)
    last = layers[-1]
    apart = last.weight[None] - last.weight[y][:, None]
    shift = 0.0 if last.bias is None else last.bias[None] - last.bias[y][:, None]
    centre, radius = centre.flatten(1)[:, :, None], radius.flatten(1)[:, :, None]
    margins = (apart @ centre).squeeze(2) + shift + (apart.abs() @ radius).squeeze(2)
    return margins.scatter(1, y[:, None], 0.0)


def certified(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """(N,) bool: no image within eps (Linf) can be classified otherwise, by interval bounds."""
    with torch.no_grad():
        margins = worst_margins(model, x, y, eps)
    return (margins.scatter(1, y[:, None], -torch.inf) < 0).all(1)


def _through(layer: nn.Module, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(layer, nn.Linear):
        return layer(centre), functional.linear(radius, layer.weight.abs())
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise UnsupportedError("ibp takes convolutions with zero padding only")
        spread = functional.conv2d(
            radius,
            layer.weight.abs(),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        return layer(centre), spread
    if isinstance(layer, nn.ReLU):
        low, high = (centre - radius).relu(), (centre + radius).relu()
        return (high + low) / 2, (high - low) / 2
    if isinstance(layer, nn.Flatten | nn.Identity):
        return layer(centre), layer(radius)
    raise UnsupportedError(
        f"ibp knows no bounds of {type(layer).__name__}; "
        "choose an architecture of convolutions, linear layers and ReLU, as cnn"
    )
