"""Image preprocessing of transformers' checkpoints: the image processor, and the image area that its output shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box
from sparc_bench.images.view import View


@dataclass(frozen=True)
class ProcessorPixels:
    """Preprocessing of one image by the checkpoint's image processor; picklable.

    Attributes:
        processor: image processor of transformers.
        model: the card's name, for errors.
        patch: edge of a patch in pixels; 1 for a model without a patch grid.
        own_size: rows and columns of the input where the model takes no other size, else None.
        positions: edge of the square input for which the model has position embeddings; the library interpolates
            them for other sizes, square or not.
    """

    processor: Any
    model: str
    patch: int = 1
    own_size: tuple[int, int] | None = None
    positions: int | None = None

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        """Pixels (channels, rows, columns), and the area of the original image under the patch grid.

        Raises:
            UserError: the model takes no other size, or the size is smaller than a patch.
        """
        settings = settings_of(self.processor)
        change: dict[str, Any] = {}
        size = view.size
        if size is not None and self.own_size is not None and size != self.own_size:
            raise UserError(f"{self.model} takes {self.own_size[0]} x {self.own_size[1]} px only: leave the size out.")
        if size is not None and min(size) < self.patch:
            raise UserError(f"{self.model} has patches of {self.patch} px: give a size of at least that.")
        image = view.open()
        if size is not None:
            change = resized_settings(settings, size, image.width, image.height)
        pixels = self.processor(image, return_tensors="pt", **change)["pixel_values"][0]
        area = shown_area(settings | change, image.width, image.height)
        return pixels, view.in_original(self._under_grid(area, pixels))

    def _under_grid(self, area: Box, pixels: Tensor) -> Box:
        left, top, right, bottom = area
        rows, columns = pixels.shape[-2:]
        across = (columns // self.patch * self.patch) / columns
        down = (rows // self.patch * self.patch) / rows
        return left, top, left + (right - left) * across, top + (bottom - top) * down


@dataclass(frozen=True)
class NaflexPixels:
    """Preprocessing of one image for NaFlex (SigLIP 2): patches at its own aspect ratio, in one tensor; picklable.

    Attributes:
        processor: image processor of transformers.
        model: the card's name, for errors.
    """

    processor: Any
    model: str

    def __call__(self, view: View) -> tuple[Tensor, Box]:
        """Tensor of patches x (pixel values, mask of real patches, grid rows, grid columns), and the whole view."""
        if view.size is not None:
            raise UserError(f"{self.model} (NaFlex) keeps every image's own shape: leave the size out.")
        image = view.open()
        found = self.processor(image, return_tensors="pt")
        patches_PC, mask_P, shape_2 = (
            found[key][0] for key in ("pixel_values", "pixel_attention_mask", "spatial_shapes")
        )
        packed = torch.cat([patches_PC, mask_P[:, None].float(), shape_2.float().expand(len(mask_P), 2)], dim=1)
        return packed, view.in_original((0.0, 0.0, float(image.width), float(image.height)))


def naflex_inputs(packed_BPC: Tensor) -> dict[str, Tensor]:
    """The model's inputs, from a batch of `NaflexPixels` tensors."""
    return {
        "pixel_values": packed_BPC[..., :-3],
        "pixel_attention_mask": packed_BPC[..., -3].to(torch.int32),
        "spatial_shapes": packed_BPC[:, 0, -2:].long(),
    }


def settings_of(processor: Any) -> dict[str, Any]:  # noqa: ANN401 - a class of transformers
    """Settings of an image processor as plain values."""
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in processor.to_dict().items()}


def resized_settings(settings: Mapping[str, Any], size: tuple[int, int], width: int, height: int) -> dict[str, Any]:
    """Changed settings for inputs of other rows and columns, for one image.

    A centre crop keeps its share of the resized image: where the processor resizes the short side, the image is resized
    until it covers that much more than the crop both ways.
    """
    rows, columns = size
    if not settings.get("do_center_crop"):
        return {"size": {"height": rows, "width": columns}}
    resize, crop = settings["size"], settings["crop_size"]
    change: dict[str, Any] = {"crop_size": {"height": rows, "width": columns}}
    if not settings.get("do_resize"):
        return change
    edges = {edge: length for edge, length in resize.items() if length}
    if edges.keys() == {"height", "width"}:
        change["size"] = {
            "height": round(rows * edges["height"] / crop["height"]),
            "width": round(columns * edges["width"] / crop["width"]),
        }
    elif rows == columns:
        change["size"] = {edge: round(rows * length / crop["height"]) for edge, length in edges.items()}
    else:
        share = edges["shortest_edge"] / crop["height"]
        factor = share * max(rows / height, columns / width)
        change["size"] = {"height": round(height * factor), "width": round(width * factor)}
    return change


def shown_area(settings: Mapping[str, Any], width: int, height: int) -> Box:
    """Rectangle of an image, in its pixels, that a processor's output shows.

    For an image smaller than the crop, the rectangle includes the padding and reaches beyond the image.
    """
    wide, high = width, height
    if settings.get("do_resize"):
        wide, high = _resized_shape(settings["size"], width, height)
    if not settings.get("do_center_crop"):
        return 0.0, 0.0, float(width), float(height)
    crop = settings["crop_size"]
    left, top = (wide - crop["width"]) // 2, (high - crop["height"]) // 2
    across, down = width / wide, height / high
    return left * across, top * down, (left + crop["width"]) * across, (top + crop["height"]) * down


def output_shape(settings: Mapping[str, Any], model: str) -> tuple[int, int]:
    """Rows and columns of a processor's output.

    Raises:
        UserError: the settings give outputs of varying shape, which cannot be batched.
    """
    fixed = settings.get("size") if settings.get("do_resize") else None
    if settings.get("do_center_crop"):
        fixed = settings.get("crop_size")
    fixed = {edge: length for edge, length in (fixed or {}).items() if length}
    if fixed.keys() != {"height", "width"}:
        raise UserError(
            f"The image processor of {model} makes images of varying shape, which cannot be batched: give its "
            "preprocessor_config.json a centre crop, or a size of height and width."
        )
    return fixed["height"], fixed["width"]


def _resized_shape(size: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    if size.get("height"):
        return size["width"], size["height"]
    short, long = sorted((width, height))
    new_long = int(size["shortest_edge"] * long / short)
    return (size["shortest_edge"], new_long) if width <= height else (new_long, size["shortest_edge"])
