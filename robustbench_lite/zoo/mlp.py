"""A perceptron with hidden layers (Rumelhart, Hinton and Williams 1986, Nature 323, p. 533)."""

from torch import nn


def mlp(classes: int, channels: int, size: int, width: int = 128, depth: int = 2) -> nn.Module:
    """Fully connected layers with ReLU over all pixels, each half as wide as the one before.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images.
        width: units of the first hidden layer.
        depth: hidden layers.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = channels * size * size
    for number in range(depth):
        outputs = max(classes, width // 2**number)
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
