"""Checks of the preprocessing, on test images with a known value at every pixel.

Shapes: H W rows and columns of the model's input, C channels (1 or 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from PIL import Image

from sparc_bench.encoder import ImageTextEncoder
from sparc_bench.images.item import Box
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, Status, left_out
from sparc_bench.verify.probed_model import ProbedModel

NO_PICTURE = "the model's input is no picture of rows, columns and channels"

SIZES = {"wide": (320, 120), "tall": (120, 320), "square": (200, 200)}
"""Name -> width and height in pixels of the images of the area check."""

_MOST = 1.5
"""Largest distance of a reported edge from the measured one, in pixels of the model's input."""

_ALIASED = 0.15
"""Largest contrast left of a checkerboard of single pixels after smooth downsizing (PIL's box filter: 0.08)."""

_BICUBIC, _LANCZOS = 0.02, 0.06
"""Least overshoot at an edge, as a share of its step (PIL's bicubic: 0.04 to 0.05, its Lanczos: 0.08)."""

_KNOWN = {
    "OpenAI's mean and std": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "-1 to 1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}


def same_pixels(model: ProbedModel) -> Finding:
    """Finding on one image preprocessed twice, and on the shapes of images of all sizes."""
    expected = "the same every time, one shape for all images"
    shapes = {}
    for view in probe.IMAGES:
        first, area = model.encoder.preprocess(view)
        again, area_again = model.encoder.preprocess(view)
        if first.shape != again.shape or not bool((first == again).all()) or tuple(area) != tuple(area_again):
            advice = "preprocess is random: use the transform of evaluation, not the one of training."
            return Finding("fail", f"the {view.id} image differs when it is opened again", expected, advice)
        shapes[view.id] = " x ".join(map(str, first.shape))
    if len(set(shapes.values())) > 1:
        measured = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        if not isinstance(model.encoder, ImageTextEncoder):
            return Finding(
                "note", measured, expected, "Images have several shapes: the encoder has to batch them itself."
            )
        advice = "Images of several shapes cannot be batched: resize and crop to one size in preprocess."
        return Finding("fail", measured, expected, advice)
    kind = str(model.encoder.preprocess(probe.IMAGES[0])[0].dtype).removeprefix("torch.")
    return Finding("ok", f"{kind} {shapes['square']}", expected)


@dataclass(frozen=True)
class _Range:
    """Pixel values of black and of white, per channel."""

    black_C: ndarray
    white_C: ndarray

    def share(self, picture_HWC: ndarray) -> ndarray:
        """Pixels scaled to 0 (black) to 1 (white)."""
        share_HWC: ndarray = (picture_HWC - self.black_C) / (self.white_C - self.black_C)
        return share_HWC


def _flat(model: ProbedModel, colour: tuple[int, int, int]) -> ndarray | None:
    """Median pixel C of a preprocessed image of one colour; None where the input is no picture."""
    picture_HWC, _ = model.pixels(Image.new("RGB", (200, 200), colour))
    return None if picture_HWC is None else np.median(picture_HWC, axis=(0, 1))


def _range(model: ProbedModel) -> _Range | None:
    black_C, white_C = _flat(model, (0, 0, 0)), _flat(model, (255, 255, 255))
    return None if black_C is None or white_C is None else _Range(black_C, white_C)


def contrast(model: ProbedModel) -> Finding:
    """Finding on the mean and standard deviation that pixels are normalised by, from black and white images."""
    values = _range(model)
    if values is None:
        return left_out(NO_PICTURE)
    black_C, white_C = values.black_C, values.white_C
    expected = "the model's own mean and std"
    if np.any(np.abs(white_C - black_C) < 1e-6):
        advice = (
            "Black and white images look the same to the model: normalise by fixed numbers, not by the image's own."
        )
        return Finding("fail", "black = white", expected, advice)
    std_C = 1 / (white_C - black_C)
    mean_C = -black_C * std_C
    for name, (mean, std) in _KNOWN.items():
        if np.allclose(mean_C, mean[: len(mean_C)], atol=2e-3) and np.allclose(std_C, std[: len(std_C)], rtol=1e-2):
            inside = ", normalised in encode_pixels or not at all" if name == "0 to 255" else ""
            return Finding("ok", name + inside, expected)
    measured = f"mean {_numbers(mean_C)}, std {_numbers(std_C)}"
    advice = f"Pixels are normalised as no common model's ({measured}): compare with the model's own configuration."
    return Finding("note", measured, expected, advice)


def _numbers(values: ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def colours(model: ProbedModel) -> Finding:
    """Finding on the order of channels, from red, green and blue images."""
    values = _range(model)
    if values is None:
        return left_out(NO_PICTURE)
    if len(values.black_C) == 1:
        return left_out("the model sees grey images")
    lit_33 = np.zeros((3, 3))
    for row, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        flat_C = _flat(model, colour)
        assert flat_C is not None  # None for no picture, but black gave one
        lit_33[row] = values.share(flat_C)
    order = "".join("RGB"[int(row)] for row in lit_33.argmax(axis=0))
    expected = "channels are red, green, blue"
    if order == "RGB" and np.allclose(lit_33, np.eye(3), atol=0.1):
        return Finding("ok", "RGB", expected)
    if sorted(order) == sorted("RGB") and np.allclose(lit_33.max(axis=0), 1, atol=0.1):
        advice = (
            f"preprocess gives the channels as {order}: give them as RGB; where the weights themselves want {order}, "
            "swap the channels in encode_pixels."
        )
        return Finding("fail", order, expected, advice)
    advice = "Colours are mixed or lost in preprocess: convert with image.convert('RGB') and nothing else."
    return Finding("warning", f"a red image gives {_numbers(lit_33[0])}", expected, advice)


def area(model: ProbedModel) -> Finding:
    """Finding on the area that the pixels show, measured on two ramps, against the area that `preprocess` reports."""
    values = _range(model)
    if values is None:
        return left_out(NO_PICTURE)
    expected = f"area is what the pixels show, within {_MOST} pixels"
    shown: dict[str, Box] = {}
    for name, (width, height) in SIZES.items():
        row_HW, column_HW = np.mgrid[:height, :width]
        across_HW, claimed = _opened(model, values, (column_HW + 0.5) * 255 / width)
        down_HW, _ = _opened(model, values, (row_HW + 0.5) * 255 / height)
        if np.ptp(across_HW, axis=1).max() < 0.5 * np.ptp(across_HW, axis=0).max():
            advice = "preprocess swaps rows and columns: give pixels as (channels, rows, columns)."
            return Finding("fail", "rows and columns are swapped", expected, advice)
        inside_HW = _inside(model, values, width, height)
        left, right = _edges(across_HW, inside_HW, width)
        top, bottom = _edges(down_HW.T, inside_HW.T, height)
        if not (left < right and top < bottom):
            mirrored = "left to right" if left >= right else "upside down"
            return Finding("fail", f"mirrored {mirrored}", expected, "Take the flip out of preprocess.")
        shown[name] = (left, top, right, bottom)
        per_pixel = (right - left) / across_HW.shape[1], (bottom - top) / across_HW.shape[0]
        off = max(
            abs(a - b) / per_pixel[axis % 2] for axis, (a, b) in enumerate(zip(shown[name], claimed, strict=True))
        )
        if not off <= _MOST:
            advice = (
                f"The pixels of a {width} x {height} image show {_box(shown[name])} of it (left, top, right, bottom), "
                f"but preprocess says {_box(claimed)}: return the rectangle that is really seen, or boxes and masks "
                "will be looked up in the wrong place."
            )
            status: Status = "fail" if "patches" in model.gives else "warning"  # only patches are looked up by place
            return Finding(status, f"{off:.0f} pixels off on a {name} image", expected, advice)
    return Finding("ok", _how(shown["wide"], *SIZES["wide"], *across_HW.shape), expected)


def _opened(model: ProbedModel, values: _Range, grey_HW: ndarray) -> tuple[ndarray, Box]:
    """A preprocessed grey image (0 to 255) as shares of white HW, and the area that `preprocess` reports."""
    image = Image.fromarray(np.rint(grey_HW).clip(0, 255).astype(np.uint8)).convert("RGB")
    picture_HWC, claimed = model.pixels(image)
    assert picture_HWC is not None  # None for no picture, but black gave one
    share_HW: ndarray = values.share(picture_HWC).mean(axis=-1)
    return share_HW, claimed


def _inside(model: ProbedModel, values: _Range, width: int, height: int) -> ndarray:
    """True for pixels of the image, False for padding (HW), from the difference of a black and a white image."""
    black_HW, _ = _opened(model, values, np.zeros((height, width)))
    white_HW, _ = _opened(model, values, np.full((height, width), 255.0))
    inside_HW: ndarray = white_HW - black_HW > 0.98
    return inside_HW


def _edges(share_HW: ndarray, inside_HW: ndarray, extent: int) -> tuple[float, float]:
    """Start and end in pixels of the area along columns, from a straight line through the preprocessed ramp."""
    inside_W = inside_HW.any(axis=0)
    line_W = np.median(share_HW[inside_HW.any(axis=1)], axis=0)
    place_W = (np.arange(len(line_W)) + 0.5) / len(line_W)
    slope, start = np.polyfit(place_W[inside_W], line_W[inside_W], 1)
    return float(start * extent), float((start + slope) * extent)


def _box(box: Box) -> str:
    return "(" + ", ".join(f"{edge:.0f}" for edge in box) + ")"


def _how(shown: Box, width: int, height: int, rows: int, columns: int) -> str:
    """Crop, padding or squash of a wide image, in words."""
    left, top, right, bottom = shown
    slack = 0.02 * width
    if left > slack or right < width - slack:
        return f"crop: {100 * (right - left) / width:.0f} % of a wide image's width is seen"
    if top < -slack or bottom > height + slack:
        return "whole image, padded to the input's shape"
    return "whole image" if abs(width / height - columns / rows) < 0.05 else "whole image, squashed"


def resampling(model: ProbedModel) -> Finding:
    """Finding on the interpolation, from the contrast left of a checkerboard and the overshoot at an edge."""
    values = _range(model)
    if values is None:
        return left_out(NO_PICTURE)
    side = round(3.3 * min(model.input_size))
    row_HW, column_HW = np.mgrid[:side, :side]
    board_HW, _ = _opened(model, values, 255.0 * ((row_HW + column_HW) % 2))
    # a slightly slanted edge, so that it meets the model's pixels at every phase
    edge_HW, _ = _opened(model, values, np.where(column_HW < side / 2 + 8 * row_HW / side, 64.0, 192.0))
    inner_HW = board_HW[2:-2, 2:-2]
    left_over = float(2 * inner_HW.std())
    overshoot = float(edge_HW.max() * 255 - 192) / 128
    smooth = "bilinear or box" if left_over <= _ALIASED else "bilinear or nearest"
    kind = "Lanczos" if overshoot > _LANCZOS else "bicubic" if overshoot > _BICUBIC else smooth
    expected = "the model's own method, smoothed when made smaller"
    if left_over > _ALIASED:
        advice = (
            f"Large images are made smaller without smoothing (a checkerboard keeps {100 * left_over:.0f} % of its "
            "contrast): resize with PIL or with antialias=True, unless the model was trained without."
        )
        return Finding("warning", f"{kind}, aliased", expected, advice)
    return Finding("ok", f"{kind}, smoothed", expected)
