"""An all-convolutional net (Springenberg et al. 2015, arXiv:1412.6806, table 1, All-CNN-C)."""

from torch import nn


def allconv(classes: int, channels: int, size: int, width: int = 32) -> nn.Module:
    """Convolutions only: strides in place of pooling, and a mean over space at the end.

    Batch norm stands in place of the paper's dropout.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images; any works.
        width: maps of the first three convolutions, 96 in the paper; the next have twice as many.
    """
    plan = [(width, 3, 1), (width, 3, 1), (width, 3, 2)]
    plan += [(2 * width, 3, 1), (2 * width, 3, 1), (2 * width, 3, 2)]
    plan += [(2 * width, 3, 1), (2 * width, 1, 1)]
    layers: list[nn.Module] = []
    inputs = channels
    for outputs, kernel, stride in plan:
        layers += [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(
        *layers, nn.Conv2d(inputs, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
