"""open_clip's inference transform in two steps, with the image area that the patch grid covers.

Worker processes resize and crop with the library's own functions and give uint8 pixels. The device normalises them by
the library's operations in the library's order (`/ 255`, `- mean`, `/ std`).

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
from sparc_bench.images.item import Box
from sparc_bench.images.view import View


@dataclass(frozen=True)
class OpenClipPreprocess:
    """Transform from an image to resized and cropped uint8 pixels (channels, rows, columns); picklable.

    Attributes:
        model: name of the model, for errors.
        size: rows and columns of the model's input.
        resize_mode: open_clip's name: shortest (then a centre crop), squash, or longest (then padding).
        interpolation: bicubic or bilinear.
        fill: colour of the padding of `longest`.
        cell: rows and columns of pixels of one patch; the grid covers whole patches from the top left. None for a
            model without patches.
        flexible: whether the model takes other input sizes.
    """

    model: str
    size: tuple[int, int]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0
    cell: tuple[int, int] | None = None
    flexible: bool = True

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        """Pixels, and the area of the original image under the grid, in its pixels (partly outside it where padded).

        Raises:
            UserError: the model does not take this size, or the image cannot be read.
        """
        height, width = self.size if view.size is None else self.checked(view.size)
        image = view.open()
        resized, cropped = _steps(height, width, self.resize_mode, self.interpolation, self.fill)
        small = resized(image)
        pixels_HWC = np.array(cropped(small))
        rows, columns = (height, width) if self.cell is None else _covered((height, width), self.cell)
        top, left = _offset(small.height, height), _offset(small.width, width)
        x, y = image.width / small.width, image.height / small.height
        area = (left * x, top * y, (left + columns) * x, (top + rows) * y)
        return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous(), view.in_original(area)

    def checked(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of an input; raises UserError for a size that the model does not take."""
        if size == self.size:
            return size
        if not self.flexible:
            raise UserError(f"{self.model} takes {self.size[0]} x {self.size[1]} px only: leave the size out.")
        for pixels, edge in zip(size, self.cell or (1, 1), strict=True):
            if pixels % edge:
                nearest = max(round(pixels / edge), 1) * edge
                raise UserError(
                    f"{pixels} px are no whole number of {self.model}'s patches of {edge} px: take {nearest}."
                )
        return size


@dataclass(frozen=True)
class Normalization:
    """Normalisation of uint8 pixels.

    Attributes:
        mean: mean of each channel, of values from 0 to 1.
        std: standard deviation of each channel, of values from 0 to 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels_B3HW: Tensor) -> Tensor:
        """Normalised float32 pixels from uint8 pixels, on the same device."""
        mean, std = (pixels_B3HW.new_tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in (self.mean, self.std))
        return pixels_B3HW.to(torch.float32).div_(255).sub_(mean).div_(std)


def open_clip_preprocess(
    config: Mapping[str, Any], model: str, cell: tuple[int, int] | None, flexible: bool
) -> tuple[OpenClipPreprocess, Normalization]:
    """Preprocessing and normalisation from open_clip's configuration of a model (`model.visual.preprocess_cfg`)."""
    known = PreprocessCfg(**config)
    height, width = known.input_size[1:]
    opened = OpenClipPreprocess(
        model=model,
        size=(height, width),
        resize_mode=known.resize_mode,
        interpolation=known.interpolation,
        fill=known.fill_color,
        cell=cell,
        flexible=flexible,
    )
    return opened, Normalization(_per_channel(known.mean), _per_channel(known.std))


@cache
def _steps(height: int, width: int, resize_mode: str, interpolation: str, fill: int) -> tuple[Any, Any]:
    """open_clip's resize, and its crop or padding, as functions of PIL images."""
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
    """First row or column of a centre crop; negative where the image was padded."""
    return round((length - kept) / 2.0) if length >= kept else -((kept - length) // 2)


def _covered(size: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    return size[0] // cell[0] * cell[0], size[1] // cell[1] * cell[1]


def _per_channel(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - one number or three
    return tuple(values) if isinstance(values, list | tuple) else (float(values),) * 3
