"""A small vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Self-attention with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width)."""
        asked, offered, value = self._split(x)
        seen = functional.scaled_dot_product_attention(asked, offered, value)
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, x: Tensor) -> Tensor:
        """(N, heads, tokens, tokens) how much each token looks at each other; rows sum to 1."""
        asked, offered, _ = self._split(x)
        alike: Tensor = asked @ offered.transpose(2, 3) / asked.shape[3] ** 0.5
        return alike.softmax(3)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixed = self.mix(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        asked, offered, value = mixed.unbind(0)  # one copy on the way back; indexing makes three
        return asked, offered, value


class Layer(nn.Module):
    """Attention and a small perceptron, each after a norm and with a way around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width)."""
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))  # type: ignore[no-any-return]  # nn.Module.__call__


class VisionTransformer(nn.Module):
    """Patches as tokens, one token more for the class, and learned positions."""

    def __init__(
        self, classes: int, channels: int, side: int, patch: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, side * side + 1, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits of images (N, C, H, W)."""
        tokens = self._tokens(x)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens[:, 0]))  # type: ignore[no-any-return]  # nn.Module.__call__

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """Of each layer (N, heads, tokens, tokens); the first token is the class's."""
        tokens, seen = self._tokens(x), []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            seen.append(layer.attention.weights(layer.norm1(tokens)))
            tokens = layer(tokens)
        return seen

    def _tokens(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.positions


def vit(
    classes: int,
    channels: int,
    size: int,
    patch: int = 4,
    width: int = 96,
    depth: int = 6,
    heads: int = 4,
) -> nn.Module:
    """A transformer over square patches.

    Args:
        classes: number of logits.
        channels: channels of the images.
        size: rows and columns of the images, a multiple of `patch`.
        patch: rows and columns of a patch.
        width: of a token, a multiple of `heads`.
        depth: layers.
        heads: of each attention.
    """
    if size % patch:
        raise ValueError(f"patch is {patch}; it must divide the images' {size} rows and columns")
    if width % heads:
        raise ValueError(f"width is {width}; it must be a multiple of heads, {heads}")
    return VisionTransformer(classes, channels, size // patch, patch, width, depth, heads)
