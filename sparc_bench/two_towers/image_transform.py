"""The transform from an image to the pixels of the image tower, channels last, as training caches them.

Shapes: B images, H W rows and columns, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparc_bench.images.item import Box
from sparc_bench.images.view import View
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess

HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of a recipe's own towers: pixels from -1 to 1."""


@dataclass(frozen=True)
class ImageTransform:
    """Transform of a model's images; picklable.

    Attributes:
        preprocess: resize and crop by open_clip's functions.
        mean: mean of each channel, of values from 0 to 1; subtracted by `normalise`.
        std: standard deviation of each channel, of values from 0 to 1; `normalise` divides by it.
    """

    preprocess: OpenClipPreprocess
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        """uint8 pixels HWC, and the area of the original image that they show."""
        pixels_CHW, area = self.preprocess(view)
        return pixels_CHW.permute(1, 2, 0).contiguous(), area

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape HWC of the pixels of one image."""
        return (*self.preprocess.size, 3)

    @property
    def key(self) -> list[Any]:
        """Settings that decide the pixels: the key of the pixel cache."""
        opened = self.preprocess
        plain = [opened.size[0], opened.interpolation]
        squared = opened.resize_mode == "squash" and opened.size[0] == opened.size[1]
        return plain if squared else [*plain, opened.size, opened.resize_mode, opened.fill]


def normalise(pixels_BHWC: Tensor, mean: tuple[float, ...] = HALF, std: tuple[float, ...] = HALF) -> Tensor:
    """Normalised float32 pixels, channels first, from uint8 pixels, channels last."""
    scale_C11 = torch.tensor([255 * each for each in std], device=pixels_BHWC.device).view(-1, 1, 1)
    shift_C11 = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=pixels_BHWC.device).view(-1, 1, 1)
    return pixels_BHWC.movedim(-1, -3).to(torch.float32).div(scale_C11).sub(shift_C11)
