"""Histograms of oriented gradients and a support vector machine (Dalal and Triggs 2005, CVPR)."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.threat import Access

_BINS = 9
_CLIP = 0.2
_TINY = 1e-5


def hog(x: Tensor, cell: int) -> Tensor:
    """(N, D) features of images (N, C, H, W) in [0, 1].

    Gradients are central differences of the channel where they are largest; a pixel votes with
    their length for one of 9 orientations (section 6 of the paper), cells of `cell` x `cell` pixels
    collect the votes, and blocks of 2 x 2 cells are normalised by L2-Hys (section 6.4).
    """
    along = functional.pad(x[:, :, 2:] - x[:, :, :-2], (0, 0, 1, 1))
    across = functional.pad(x[:, :, :, 2:] - x[:, :, :, :-2], (1, 1))
    strongest = (along.square() + across.square()).argmax(1, keepdim=True)
    along, across = along.gather(1, strongest)[:, 0], across.gather(1, strongest)[:, 0]
    length = (along.square() + across.square()).sqrt()
    angle = torch.atan2(along, across) % math.pi
    bins = (angle * (_BINS / math.pi)).long().clamp(max=_BINS - 1)
    votes = torch.zeros(len(x), _BINS, *length.shape[1:], dtype=x.dtype, device=x.device)
    votes.scatter_(1, bins[:, None], length[:, None])
    cells = functional.avg_pool2d(votes, cell).permute(0, 2, 3, 1)
    blocks = cells.unfold(1, 2, 1).unfold(2, 2, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
    blocks = _unit(_unit(blocks).clamp(max=_CLIP))
    return blocks.flatten(1)


def _unit(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(-1, keepdim=True) + _TINY**2).sqrt()


class HogMachine(nn.Module, ABC):
    """One machine a class on the features; the logits are their decision values.

    Its labels and scores may be asked, its gradients may not: votes for orientations jump.
    """

    access: ClassVar[Access] = Access.SCORES

    def __init__(self, classes: int, channels: int, size: int, cell: int, penalty: float) -> None:
        super().__init__()
        if size < 2 * cell:
            raise ValueError(f"cell is {cell}; two of them must fit in {size} rows and columns")
        self.classes, self.cell, self.penalty = classes, cell, penalty
        self.features = hog(torch.zeros(1, channels, size, size), cell).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) decision values, without a gradient."""
        with torch.no_grad():
            return self.decide(hog(x, self.cell))

    @abstractmethod
    def decide(self, features: Tensor) -> Tensor:
        """(N, classes) decision values of features (N, D)."""

    @abstractmethod
    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """Learn from images (N, C, H, W) and labels (N,)."""


class LinearMachine(HogMachine):
    """A hyperplane a class."""

    def __init__(self, classes: int, channels: int, size: int, cell: int, penalty: float) -> None:
        super().__init__(classes, channels, size, cell, penalty)
        self.register_buffer("weight", torch.zeros(classes, self.features))
        self.register_buffer("bias", torch.zeros(classes))

    weight: Tensor
    bias: Tensor

    def decide(self, features: Tensor) -> Tensor:
        """The signed distances to the planes, not normalised."""
        return functional.linear(features, self.weight, self.bias)

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """scikit-learn's LinearSVC, one against the rest."""
        from sklearn.svm import LinearSVC

        machine = LinearSVC(C=self.penalty, random_state=seed % 2**32)
        machine.fit(hog(x, self.cell).numpy(), y.numpy())
        weight, bias = torch.from_numpy(machine.coef_), torch.from_numpy(machine.intercept_)
        if self.classes == 2:  # which have one machine
            weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
        self.weight, self.bias = weight.float(), bias.float()


class KernelMachine(HogMachine):
    """A machine a class with the kernel exp(-gamma |u - v|^2); they share support vectors."""

    def __init__(
        self, classes: int, channels: int, size: int, cell: int, penalty: float, samples: int
    ) -> None:
        super().__init__(classes, channels, size, cell, penalty)
        self.samples = samples
        self.register_buffer("support", torch.zeros(0, self.features, dtype=torch.float16))
        self.register_buffer("weight", torch.zeros(classes, 0))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("gamma", torch.ones(()))
        self.register_load_state_dict_pre_hook(self._make_room)  # type: ignore[no-untyped-call]

    support: Tensor
    weight: Tensor
    bias: Tensor
    gamma: Tensor

    @staticmethod
    def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
        """How many vectors support the machines is only known from what is loaded."""
        assert isinstance(module, KernelMachine)
        count = len(state.get(f"{prefix}support", module.support))
        module.support = module.support.new_zeros(count, module.features)
        module.weight = module.weight.new_zeros(module.classes, count)

    def decide(self, features: Tensor) -> Tensor:
        """Sums of kernels with the support vectors."""
        apart = torch.cdist(features, self.support.float()).square()
        return functional.linear((-self.gamma * apart).exp(), self.weight, self.bias)

    def fit(self, x: Tensor, y: Tensor, seed: int) -> None:
        """scikit-learn's SVC, one against the rest, on the first `samples` images."""
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import SVC

        # Half precision halves the file; learning from the rounded features loses nothing.
        features = hog(x[: self.samples], self.cell).half()
        learned, labels = features.float().numpy(), y[: self.samples].numpy()
        gamma = 1 / (learned.shape[1] * float(learned.var()))
        machine = OneVsRestClassifier(SVC(C=self.penalty, gamma=gamma)).fit(learned, labels)
        weight = torch.zeros(len(machine.estimators_), len(learned))
        for row, one in zip(weight, machine.estimators_, strict=True):
            row[torch.from_numpy(one.support_).long()] = torch.from_numpy(one.dual_coef_[0]).float()
        bias = torch.tensor([float(one.intercept_[0]) for one in machine.estimators_])
        if self.classes == 2:
            weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
        used = (weight != 0).any(0)
        self.support, self.weight = features[used], weight[:, used]
        self.bias, self.gamma = bias, torch.tensor(gamma)


def hog_linear(
    classes: int, channels: int, size: int, cell: int = 4, penalty: float = 1.0
) -> nn.Module:
    """Gradient histograms and a linear support vector machine for each class.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images, two cells or more.
        cell: rows and columns of a cell.
        penalty: of samples on the wrong side, C.
    """
    return LinearMachine(classes, channels, size, cell, penalty)


def hog_rbf(
    classes: int,
    channels: int,
    size: int,
    cell: int = 4,
    penalty: float = 10.0,
    samples: int = 2000,
) -> nn.Module:
    """Gradient histograms and a support vector machine with a Gaussian kernel for each class.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images, two cells or more.
        cell: rows and columns of a cell.
        penalty: of samples on the wrong side, C.
        samples: how many of the training images are learned from.
    """
    return KernelMachine(classes, channels, size, cell, penalty, samples)
