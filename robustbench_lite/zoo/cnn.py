"""A convolutional net in the manner of LeNet (LeCun et al. 1998) with strided convolutions."""

import math

from torch import nn


def cnn(
    classes: int, channels: int, size: int, width: int = 16, hidden: int = 100, stride: int = 2
) -> nn.Module:
    """Two convolutions and two linear layers.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images.
        width: channels of the first convolution; the second has twice as many.
        hidden: units between the two linear layers.
        stride: of both convolutions.
    """
    side = math.ceil(math.ceil(size / stride) / stride)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3 if stride == 1 else 4, stride, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3 if stride == 1 else 4, stride, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * side * side, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
