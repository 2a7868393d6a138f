"""The eps at which a data set is usually attacked, for suites that are about one norm."""

from collections.abc import Callable, Mapping

from robustbench_lite.suite import Trial
from robustbench_lite.threat import Norm

_STARTS = {
    "cifar10": ("torchvision:CIFAR10", "npz:cifar10"),
    "digits": ("digits",),
    "fashion": ("torchvision:FashionMNIST", "npz:fashion"),
    "gtsrb": ("npz:gtsrb",),
    "mnist": ("mnist", "torchvision:MNIST", "npz:mnist"),
}
# CIFAR-10's and MNIST's are those of the literature; digits has 64 pixels, so less of everything.
_EPS = {
    "cifar10": {Norm.LINF: 8 / 255, Norm.L2: 0.5, Norm.L1: 12.0, Norm.L0: 24.0},
    "digits": {Norm.LINF: 0.1, Norm.L2: 0.5, Norm.L1: 2.0, Norm.L0: 3.0},
    "fashion": {Norm.LINF: 0.1, Norm.L2: 1.0, Norm.L1: 10.0, Norm.L0: 12.0},
    "gtsrb": {Norm.LINF: 8 / 255, Norm.L2: 0.5, Norm.L1: 12.0, Norm.L0: 24.0},
    "mnist": {Norm.LINF: 0.3, Norm.L2: 2.0, Norm.L1: 10.0, Norm.L0: 12.0},
}


def everywhere(
    trials: Callable[[Mapping[Norm, float]], tuple[Trial, ...]],
) -> dict[str, tuple[Trial, ...]]:
    """The trials for the eps of every data set, by what its name starts with."""
    return {start: trials(_EPS[family]) for family, starts in _STARTS.items() for start in starts}
