"""What an image processor does to pixels, found out by showing it images."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PoolFormerImageProcessor

from robustbench_lite import InputError
from robustbench_lite.sources.models.colours import seen_by


@dataclass
class Processor:
    """Normalises each channel of the image by its own numbers, then turns the channels."""

    turned: tuple[int, ...] = (1, 2, 0)
    mixing: float = 0.0
    power: float = 1.0

    def __call__(
        self, images: list[np.ndarray], return_tensors: str, input_data_format: str
    ) -> dict[str, Tensor]:
        x = torch.from_numpy(images[0].astype(np.float64)).permute(2, 0, 1) / 255
        x = x**self.power + self.mixing * x.mean(0)
        mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
        normalised = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        return {"pixel_values": normalised[list(self.turned), 8:408, 8:408][None]}


def test_channels_are_normalised_before_they_are_turned():
    seen = seen_by("net", Processor(), 3)
    assert seen.order == (1, 2, 0)
    assert seen.mean == (0.1, 0.2, 0.3)
    assert seen.std == (0.5, 0.6, 0.7)
    assert (seen.size, seen.crop) == (400, 0.781)  # of 512


@pytest.mark.parametrize(
    "processor", [Processor(mixing=0.1), Processor(power=2.2), Processor(turned=(0, 0, 1))]
)
def test_more_than_that_is_refused(processor):
    with pytest.raises(InputError, match="the image processor of model 'net' does more to colours"):
        seen_by("net", processor, 3)


def test_a_processor_that_fails_is_told():
    with pytest.raises(InputError, match=r"of model 'net' fails \(RuntimeError: .*file.py:factory"):
        seen_by("net", Processor(), 5)


def test_a_crop_that_only_the_processor_knows():
    size = {"height": 16, "width": 16}
    own = PoolFormerImageProcessor(size={"shortest_edge": 16}, crop_pct=0.8, crop_size=size)
    assert seen_by("net", own, 3).crop == 0.8
