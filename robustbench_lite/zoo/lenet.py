"""LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", II.B)."""

from torch import nn


def lenet(classes: int, channels: int, size: int, width: int = 6, hidden: int = 84) -> nn.Module:
    """Two convolutions with tanh, each followed by average pooling, and three linear layers.

    All maps of the first convolution feed the second, and logits stand in place of the distances
    of the paper's last layer. Both convolutions keep rows and columns, so that small images do.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images, 4 or more.
        width: maps of the first convolution; the second has 16 for every 6 of them.
        hidden: units of the last hidden layer; the one before has 120 for every 84 of them.
    """
    second, side = round(width * 16 / 6), size // 4
    wide = round(hidden * 120 / 84)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 1, 2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, second, 5, 1, 2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(second * side * side, wide),
        nn.Tanh(),
        nn.Linear(wide, hidden),
        nn.Tanh(),
        nn.Linear(hidden, classes),
    )
