"""From an image to the square of pixels that a tower takes, in the layout that training caches: channels last.

Shapes: B images, H W rows and columns, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparc_bench.images.item import Box, ImageItem
from sparc_bench.two_towers.clip_pixels import ClipPixels

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Framing:
    """How a model takes images; picklable.

    Attributes:
        opens: resizes and crops as open_clip does.
        mean: of the channels in 0..1, subtracted.
        std: of the channels in 0..1, divided by.
    """

    opens: ClipPixels
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    def __call__(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """uint8 pixels HWC, and the area of the original that they show."""
        pixels_CHW, area = self.opens(item, size)
        return pixels_CHW.permute(1, 2, 0).contiguous(), area

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image's pixels, HWC."""
        return (*self.opens.size, 3)

    @property
    def key(self) -> list[Any]:
        """What decides the pixels, for their cache."""
        plain = [self.opens.size[0], self.opens.interpolation]
        squared = self.opens.resize_mode == "squash" and self.opens.size[0] == self.opens.size[1]
        return plain if squared else [*plain, self.opens.size, self.opens.resize_mode, self.opens.fill]


def normalise(pixels_BHWC: Tensor, mean: tuple[float, ...] = HALF, std: tuple[float, ...] = HALF) -> Tensor:
    """uint8 pixels, channels last, to float32 less the mean and over the deviation, channels first."""
    scale_C11 = torch.tensor([255 * each for each in std], device=pixels_BHWC.device).view(-1, 1, 1)
    shift_C11 = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=pixels_BHWC.device).view(-1, 1, 1)
    return pixels_BHWC.movedim(-1, -3).to(torch.float32).div(scale_C11).sub(shift_C11)
