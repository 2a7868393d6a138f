"""Wide residual nets (Zagoruyko and Komodakis 2016, arXiv:1605.07146, section 2)."""

from torch import Tensor, nn


class WideBlock(nn.Module):
    """Norm, ReLU and 3 x 3 convolution, twice, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.around: nn.Module = nn.Identity()
        self.changes = stride != 1 or inputs != outputs
        if self.changes:
            self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, H / stride, W / stride)."""
        active = self.relu1(self.norm1(x))
        inner = self.conv2(self.relu2(self.norm2(self.conv1(active))))
        around: Tensor = self.around(active) if self.changes else x
        joined: Tensor = around + inner
        return joined


def wideresnet(
    classes: int, channels: int, size: int, width: int = 4, depth: int = 10
) -> nn.Module:
    """Three stages with 16, 32 and 64 times `width` maps.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images; any works.
        width: the widening factor; WRN-34-10 has 10.
        depth: layers, 4 more than a multiple of 6; WRN-34-10 has 34.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}; it must be 10, 16, 22, 28, ...")
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
    inputs = 16
    for stage in range(3):
        outputs = 16 * width * 2**stage
        for block in range((depth - 4) // 6):
            layers.append(WideBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, classes),
    )
