"""Images as open_clip's inference transform opens them, with the area of the original that the patch grid shows.

Resize and crop are the library's own, in worker processes; pixels travel as bytes and become numbers on the device, by
the same operations in the same order as the library's (`/ 255`, `- mean`, `/ std`).

Shapes: B images, H W rows and columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from open_clip.transform import MaybeToTensor, PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import Normalize

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box, ImageItem


@dataclass(frozen=True)
class ClipPixels:
    """Opens an image as uint8 pixels (channels, rows, columns), resized and cropped; picklable.

    Attributes:
        model: its name, for errors.
        size: rows and columns that the model takes.
        resize_mode: open_clip's: shortest (then a centre crop), squash, or longest (then padded).
        interpolation: bicubic or bilinear.
        fill: colour of the padding of `longest`.
        cell: rows and columns of pixels of one patch: the grid covers whole patches from the top left; None where
            there are none.
        flexible: other sizes can be asked for.
    """

    model: str
    size: tuple[int, int]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0
    cell: tuple[int, int] | None = None
    flexible: bool = True

    def __call__(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """Pixels, and the area that they show in pixels of the item's image (partly outside it where padded).

        Raises:
            UserError: the model takes no such size, or the image cannot be read.
        """
        height, width = self.size if size is None else self.checked(size)
        image = item.open()
        resized, cropped = _steps(height, width, self.resize_mode, self.interpolation, self.fill)
        small = resized(image)
        pixels_HWC = np.array(cropped(small))
        rows, columns = (height, width) if self.cell is None else _covered((height, width), self.cell)
        top, left = _offset(small.height, height), _offset(small.width, width)
        x, y = image.width / small.width, image.height / small.height
        area = (left * x, top * y, (left + columns) * x, (top + rows) * y)
        return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous(), area

    def checked(self, size: int) -> tuple[int, int]:
        """Rows and columns of a square input; raises UserError where the model cannot take it."""
        if (size, size) != self.size and not self.flexible:
            raise UserError(f"{self.model} takes {self.size[0]} x {self.size[1]} px only: leave the size out.")
        if (size, size) != self.size and self.cell is not None and any(size % edge for edge in self.cell):
            edge = self.cell[0]
            nearest = max(round(size / edge), 1) * edge
            raise UserError(f"{size} px are no whole number of {self.model}'s patches of {edge} px: take {nearest}.")
        return size, size


@dataclass(frozen=True)
class Normalised:
    """Bytes to what the model takes.

    Attributes:
        mean: per channel, of values from 0 to 1.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels_B3HW: Tensor) -> Tensor:
        """Float32 pixels of uint8 ones, on their device."""
        mean, std = (pixels_B3HW.new_tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in (self.mean, self.std))
        return pixels_B3HW.to(torch.float32).div_(255).sub_(mean).div_(std)


def clip_pixels(
    config: Mapping[str, Any], model: str, cell: tuple[int, int] | None, flexible: bool
) -> tuple[ClipPixels, Normalised]:
    """Both steps from open_clip's preprocessing configuration of a model (`model.visual.preprocess_cfg`)."""
    known = PreprocessCfg(**config)
    height, width = known.input_size[1:]
    opened = ClipPixels(
        model=model,
        size=(height, width),
        resize_mode=known.resize_mode,
        interpolation=known.interpolation,
        fill=known.fill_color,
        cell=cell,
        flexible=flexible,
    )
    return opened, Normalised(_per_channel(known.mean), _per_channel(known.std))


@cache
def _steps(height: int, width: int, resize_mode: str, interpolation: str, fill: int) -> tuple[Any, Any]:
    """The library's resize, and its crop or padding, on PIL images."""
    size = height if height == width else (height, width)
    config = PreprocessCfg(size=size, resize_mode=resize_mode, interpolation=interpolation, fill_color=fill)
    whole = image_transform_v2(config, is_train=False)
    resize, *rest = [step for step in whole.transforms if not isinstance(step, MaybeToTensor | Normalize)]

    def crop(image: Image.Image) -> Image.Image:
        for step in rest:
            image = step(image)
        return image

    return resize, crop


def _offset(length: int, kept: int) -> int:
    """Where a centre crop begins; negative where the image was padded."""
    return round((length - kept) / 2.0) if length >= kept else -((kept - length) // 2)


def _covered(size: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    return size[0] // cell[0] * cell[0], size[1] // cell[1] * cell[1]


def _per_channel(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - one number or three
    return tuple(values) if isinstance(values, list | tuple) else (float(values),) * 3
