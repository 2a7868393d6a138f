"""Residual nets for small images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, H / stride, W / stride)."""
        out: Tensor = self.relu(self.inside(x) + self.around(x))
        return out

    def inside(self, x: Tensor) -> Tensor:
        """What the two convolutions add to the way around."""
        inner = self.relu(self.norm1(self.conv1(x)))
        added: Tensor = self.norm2(self.conv2(inner))
        return added


def resnet(classes: int, channels: int, size: int, width: int = 16, depth: int = 2) -> nn.Module:
    """Three stages of `depth` blocks with `width`, 2 and 4 times `width` channels.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images; any works, the last stage is averaged over space.
        width: channels of the first stage.
        depth: blocks a stage; the net has 6 * depth + 2 layers.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage
        for block in range(depth):
            layers.append(Block(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
