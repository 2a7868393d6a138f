"""A residual net with attention to channels (Hu et al. 2018, arXiv:1709.01507, section 3)."""

from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.zoo.resnet import Block


class Excitation(nn.Module):
    """Squeeze and excitation: every channel is weighed by what all channels hold on average."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.excite = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) each channel times a weight in (0, 1)."""
        return x * self.weights(x)

    def weights(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1) the attention paid to each channel."""
        mean = functional.adaptive_avg_pool2d(x, 1)
        return self.excite(functional.relu(self.squeeze(mean))).sigmoid()  # type: ignore[no-any-return]  # nn.Module.__call__


class AttentiveBlock(Block):
    """A residual block whose inner channels are weighed before they join the way around."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.attention = Excitation(outputs, reduction)

    def inside(self, x: Tensor) -> Tensor:
        """The same with each channel weighed."""
        weighed: Tensor = self.attention(super().inside(x))
        return weighed


def senet(
    classes: int, channels: int, size: int, width: int = 16, depth: int = 2, reduction: int = 8
) -> nn.Module:
    """Three stages of `depth` blocks with `width`, 2 and 4 times `width` channels.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images; any works.
        width: channels of the first stage.
        depth: blocks a stage.
        reduction: channels for each unit of the squeeze; 16 in the paper's wider nets.
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
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(AttentiveBlock(inputs, outputs, stride, reduction))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
