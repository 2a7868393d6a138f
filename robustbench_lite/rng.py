"""Random numbers keyed by sample, not by batch position.

Every number is a pure function of (seed, sample, attack, restart, step, draw, element): a 64-bit
counter is hashed with the finaliser of SplitMix64 (Steele, Lea and Flood 2014, section 3). So a
sample sees the same numbers whoever its batch-mates are, and no global generator is touched.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_A = 0xBF58476D1CE4E5B9 - 2**64
_MIX_B = 0x94D049BB133111EB - 2**64


def key_of(*parts: str | int) -> int:
    """A signed 64-bit key of the given parts; different parts give different keys."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(
        hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True
    )


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, in a tensor of its own: torch only has the arithmetic one."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor, *, whole: bool = True) -> Tensor:
    z = _shift(z, 30).bitwise_xor_(z).mul_(_MIX_A)
    z = _shift(z, 27).bitwise_xor_(z).mul_(_MIX_B)
    return _shift(z, 31).bitwise_xor_(z) if whole else z  # the 31 highest bits are there already


def numbered(keys: Tensor, numbers: Tensor) -> Tensor:
    """(N,) int64 keys made of `keys` (N,) and `numbers` (N,): one for each question of a slot."""
    return _mix(_mix(keys + _GOLDEN) + (numbers + 1) * _GOLDEN)


class Rng:
    """The random stream of each slot of a batch, at the step where that slot stands.

    Args:
        keys: (N,) int64, one key a slot.
        steps: (N,) int64, each slot's step; None for step 0.
    """

    def __init__(self, keys: Tensor, steps: Tensor | None = None) -> None:
        steps = torch.zeros_like(keys) if steps is None else steps
        self._base = numbered(keys, steps)
        self._draws = 0

    def branch(self, number: int) -> "Rng":
        """Another stream of the same slots and steps; drawing from it moves no draw of this one.

        For numbers that are needed now and then: whether batch-mates need them must not tell.
        """
        other = Rng.__new__(Rng)
        other._base = _mix(_mix(self._base) + number + 1)
        other._draws = 0
        return other

    def _bits(self, shape: Sequence[int], *, whole: bool = False) -> Tensor:
        """(N, *shape) int64 random bits, the 31 highest of each or the `whole`."""
        self._draws += 1
        device = self._base.device
        offset = (self._draws * _GOLDEN + 2**63) % 2**64 - 2**63  # wraps like int64
        base = _mix(self._base + offset)
        counter = torch.arange(math.prod(shape), device=device, dtype=torch.int64) * _GOLDEN
        return _mix(base[:, None] + counter, whole=whole).reshape(len(base), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) float32, uniform on the open interval (0, 1)."""
        return _shift(self._bits(shape), 41).to(torch.float32).add_(0.5).mul_(2.0**-23)

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) float32, standard normal (Box and Muller 1958)."""
        radius = torch.sqrt(-2.0 * torch.log(self.uniform(*shape)))
        return radius * torch.cos(2.0 * math.pi * self.uniform(*shape))

    def exponential(self, *shape: int) -> Tensor:
        """(N, *shape) float32, exponential with mean 1."""
        return -torch.log(self.uniform(*shape))

    def signs(self, *shape: int) -> Tensor:
        """(N, *shape) float32, -1 or +1 with equal probability."""
        return _shift(self._bits(shape), 63).to(torch.float32).mul_(2).sub_(1)

    def integers(self, high: int, *shape: int) -> Tensor:
        """(N, *shape) int64, uniform on 0 .. high - 1."""
        return _shift(self._bits(shape, whole=True), 32) * high >> 32
