"""JPEG compression at inference (Guo et al. 2018, arXiv:1711.00117, section 4.1)."""

from dataclasses import dataclass
from io import BytesIO
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from robustbench_lite.defense import Transform
from robustbench_lite.errors import UnsupportedError
from robustbench_lite.rng import Rng


@dataclass(frozen=True)
class Jpeg(Transform):
    """The image after it was written as a JPEG file and read again.

    There is no gradient; an adaptive attacker takes the identity's (BPDA, Athalye et al. 2018,
    arXiv:1802.00420, section 4.1).

    Args:
        quality: of the file; 75 in the paper.
    """

    quality: Annotated[int, Field(ge=1, le=100)] = 75

    def images(self, x: Tensor, rng: Rng) -> Tensor:
        """(N, C, H, W) in steps of 1/255, C being 1 or 3.

        Raises:
            UnsupportedError: images have another number of channels.
        """
        if x.shape[1] not in (1, 3):
            raise UnsupportedError(
                f"jpeg takes images of 1 or 3 channels, not {x.shape[1]}; leave it out"
            )
        pixels = (x.detach().nan_to_num(0.0).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        rows = pixels.permute(0, 2, 3, 1).numpy()
        read = np.stack([self._through_a_file(image) for image in rows]).reshape(rows.shape)
        return torch.from_numpy(read).permute(0, 3, 1, 2).to(x.device, x.dtype) / 255

    def _through_a_file(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
            file, "JPEG", quality=self.quality
        )
        return np.asarray(Image.open(file))
