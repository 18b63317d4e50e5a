"""The probe of `sparc-bench verify`: images and texts that are the same on every machine and need no data on disk.

The cards' [probe] values are measured on it: a change of any image or text needs another VERSION.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy import ndarray
from PIL import Image

from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.scenes.generate import draw_scene
from sparc_bench.scenes.random_stream import RandomStream, fold
from sparc_bench.scenes.render import render_array

VERSION = 1
"""Version of the probe, stored in every [probe] table."""

_SEED = "verify"


@cache
def _tiles(rows: int, columns: int, scale: int) -> ndarray:
    """Rendered scenes of 64 x 64 pixels side by side, every pixel repeated `scale` times each way."""
    scenes = [render_array(draw_scene(RandomStream(fold(_SEED), n), "val")) for n in range(rows * columns)]
    sheet = np.concatenate(
        [np.concatenate(scenes[row * columns : (row + 1) * columns], axis=1) for row in range(rows)], axis=0
    )
    pixels_HW3 = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
    pixels_HW3.flags.writeable = False
    return pixels_HW3


def scenes(rows: int, columns: int, scale: int) -> Image.Image:
    """A sheet of rendered scenes, 64 * scale pixels each."""
    return Image.fromarray(_tiles(rows, columns, scale))


def _tiny() -> Image.Image:
    return Image.fromarray(_tiles(1, 1, 1)[20:31, 24:40])


def _pattern() -> Image.Image:
    """Gradients in all three channels under a checkerboard, 300 x 200 pixels."""
    row_HW, column_HW = np.mgrid[:200, :300]
    checks_HW = 40 * ((row_HW // 25 + column_HW // 25) % 2)
    channels = (column_HW * 200 // 300, row_HW * 200 // 200, (row_HW + column_HW) * 200 // 500)
    return Image.fromarray(np.stack([channel_HW + checks_HW for channel_HW in channels], axis=-1).astype(np.uint8))


IMAGES: tuple[View, ...] = (
    View(ImageItem("square", partial(scenes, 1, 1, 4))),
    View(ImageItem("wide", partial(scenes, 1, 3, 2))),
    View(ImageItem("tall", partial(scenes, 2, 1, 3))),
    View(ImageItem("tiny", _tiny)),
    View(ImageItem("large", partial(scenes, 3, 4, 4))),
    View(ImageItem("pattern", _pattern)),
)
"""Images of 256 x 256, 384 x 128, 192 x 384, 16 x 11, 1024 x 768 and 300 x 200 pixels (width x height)."""

LONG = "a photo of " + " and ".join(f"{n} red balloons over a green field" for n in range(2, 40))
"""A text longer than the context of any CLIP."""

COMPARED_IMAGES = IMAGES[:4]
"""The images of the probe values; the first of IMAGES, so that they are encoded once."""

COMPARED_TEXTS: dict[str, str] = {
    "plain": "a photo of a dog",
    "scene": "a red circle to the left of a blue square",
    "mixed case": "A Photo of TWO Dogs",
    "punctuation": "two dogs, running; one cat (asleep)!",
    "long": LONG,
}
"""The texts of the probe values; each name says which step of text cleaning or tokenizing a difference points to."""

_THINGS = ("dog", "cat", "bicycle", "bridge", "violin", "teapot", "mountain", "newspaper")
_COLOURS = ("red", "yellow", "green", "blue", "purple", "orange")
_SHAPES = ("circle", "square", "triangle", "star")

TEXTS: tuple[str, ...] = (
    *(f"a photo of a {thing}" for thing in _THINGS),
    *(
        f"two {thing}s on the left of a {other}"
        for thing, other in zip(_THINGS, _THINGS[1:] + _THINGS[:1], strict=True)
    ),
    *(f"a photo of a {colour} {shape}" for colour in _COLOURS for shape in _SHAPES),
)
"""Forty different short texts about everyday things and rendered shapes."""
