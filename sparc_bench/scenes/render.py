"""Pixels and masks of a scene, by integer arithmetic alone, so that they are equal on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray
from PIL import Image

from sparc_bench.images.item import Box
from sparc_bench.scenes.random_stream import RandomStream, words
from sparc_bench.scenes.scene import Object, Scene
from sparc_bench.scenes.shapes import silhouette, silhouette_bounds, stamp
from sparc_bench.scenes.world import ACCENT, FIELDS, RGB, SIDE

BACKGROUND_RANGE = (88, 184)
"""Range of all background channels; the channels of a pixel are within 16 of each other."""

_ROW_HW, _COLUMN_HW = np.mgrid[:SIDE, :SIDE].astype(np.int32)
_COLOUR_C3 = {name: np.array(rgb, dtype=np.int32) for name, rgb in RGB.items()}
_ACCENT_C3 = {name: np.array(rgb, dtype=np.int32) for name, rgb in ACCENT.items()}


def _bytes(key: int, count: int) -> Int[ndarray, "count"]:
    """Random integers in 0..255."""
    byte_K: Int[ndarray, "count"] = words(key, (count + 7) // 8).astype("<u8").view(np.uint8)[:count].astype(np.int32)
    return byte_K


def _clouds(key: int, cell: int) -> Int[ndarray, "H W"]:
    """Value noise in 0..255: random values on a lattice of `cell` pixels, interpolated bilinearly."""
    points = SIDE // cell + 1
    lattice = _bytes(key, points * points).reshape(points, points)
    whole, part = np.divmod(np.arange(SIDE), cell)
    along = lattice[whole] * (cell - part)[:, None] + lattice[whole + 1] * part[:, None]
    between_HW: Int[ndarray, "H W"] = (along[:, whole] * (cell - part) + along[:, whole + 1] * part) // (cell * cell)
    return between_HW


def _background(key: int) -> Int[ndarray, "H W 3"]:
    """A greyish texture (clouds, a gradient, weave or stone) with grain and a slight tint."""
    stream = RandomStream(key)
    base = 112 + stream.below(48)
    kind = stream.below(4)
    tint_3 = np.array([stream.below(9) - 4 for _ in range(3)], dtype=np.int32)
    grain_HW = _bytes(stream.word(), SIDE * SIDE).reshape(SIDE, SIDE)
    inner = stream.word()
    if kind == 0:
        relief_HW = (_clouds(inner, 16) - 128) // 8
    elif kind == 1:
        slope = RandomStream(inner)
        right, down = slope.below(33) - 16, slope.below(33) - 16
        relief_HW = (right * (_COLUMN_HW - SIDE // 2) + down * (_ROW_HW - SIDE // 2)) // SIDE
    elif kind == 2:
        pitch = 2 + inner % 3
        relief_HW = 12 * ((_COLUMN_HW // pitch + _ROW_HW // pitch) % 2) - 6
    else:
        relief_HW = (_clouds(inner, 4) - 128) // 10 + (_clouds(inner ^ 1, 32 if inner & 2 else 16) - 128) // 14
    grey_HW = base + relief_HW + (grain_HW - 128) // 16
    texture_HW3: Int[ndarray, "H W 3"] = np.clip(grey_HW[..., None] + tint_3, *BACKGROUND_RANGE)
    return texture_HW3


def _square(object_: Object) -> tuple[slice, slice]:
    """Rows and columns of the square that an object fills."""
    return slice(object_.top, object_.top + object_.extent), slice(object_.left, object_.left + object_.extent)


def _paint(scene: Scene) -> UInt8[ndarray, "H W 3"]:
    canvas_HW3 = _background(scene.background)
    for object_ in scene.objects:
        plain_EE, accent_EE = stamp(object_.shape, object_.pattern, object_.extent)
        square_EE3 = canvas_HW3[_square(object_)]
        plain_EE1, accent_EE1 = plain_EE[..., None].astype(np.int32), accent_EE[..., None].astype(np.int32)
        square_EE3[:] = (
            square_EE3 * (4 - plain_EE1 - accent_EE1)
            + _COLOUR_C3[object_.colour] * plain_EE1
            + _ACCENT_C3[object_.colour] * accent_EE1
            + 2
        ) // 4
    return canvas_HW3.astype(np.uint8)


@lru_cache(maxsize=4096)
def render_array(scene: Scene) -> UInt8[ndarray, "H W 3"]:
    """The image as sRGB bytes; read-only, since the last 4,096 images stay in memory (12 KiB each)."""
    pixels_HW3 = _paint(scene)
    pixels_HW3.flags.writeable = False
    return pixels_HW3


def open_scene(scene: Scene) -> Image.Image:
    """The rendered image; opener of an `ImageItem`."""
    return Image.fromarray(render_array(scene))


@lru_cache(maxsize=64)
def instance_map(scene: Scene) -> Int[ndarray, "H W"]:
    """Index of the visible object at every pixel, -1 for the background; read-only."""
    map_HW = np.full((SIDE, SIDE), -1, dtype=np.int64)
    for index, object_ in enumerate(scene.objects):
        map_HW[_square(object_)][silhouette(object_.shape, object_.extent)] = index
    map_HW.flags.writeable = False
    return map_HW


def instance_mask(scene: Scene, index: int) -> Bool[ndarray, "H W"]:
    """The visible pixels of one object."""
    mask_HW: Bool[ndarray, "H W"] = instance_map(scene) == index
    return mask_HW


def semantic_map(scene: Scene, field: str) -> Int[ndarray, "H W"]:
    """Index of the visible object's value of `field` (such as "shape") at every pixel, -1 for the background."""
    labels = [FIELDS[field].index(getattr(object_, field)) for object_ in scene.objects]
    map_HW: Int[ndarray, "H W"] = np.array([*labels, -1], dtype=np.int64)[instance_map(scene)]
    return map_HW


def overlapping(scene: Scene) -> bool:
    """Whether the squares of any two objects overlap."""
    squares = [(object_.left, object_.top, object_.extent) for object_ in scene.objects]
    return any(
        left < left2 + extent2 and left2 < left + extent and top < top2 + extent2 and top2 < top + extent
        for i, (left, top, extent) in enumerate(squares)
        for left2, top2, extent2 in squares[:i]
    )


@lru_cache(maxsize=64)
def visible_pixels(scene: Scene) -> tuple[int, ...]:
    """Number of visible pixels of every object."""
    if not overlapping(scene):
        return tuple(silhouette_bounds(object_.shape, object_.extent)[4] for object_ in scene.objects)
    seen = np.bincount(instance_map(scene).ravel() + 1, minlength=len(scene.objects) + 1)[1:]
    return tuple(seen.tolist())


def visible_shares(scene: Scene) -> list[float]:
    """Visible share of the pixels of every object."""
    return [
        pixels / silhouette_bounds(object_.shape, object_.extent)[4]
        for pixels, object_ in zip(visible_pixels(scene), scene.objects, strict=True)
    ]


def boxes(scene: Scene) -> list[tuple[Box, int]]:
    """(Tight box of the visible pixels, right and bottom exclusive; their number) for every object."""
    found = []
    for index, (object_, pixels) in enumerate(zip(scene.objects, visible_pixels(scene), strict=True)):
        left, top, right, bottom, whole = silhouette_bounds(object_.shape, object_.extent)
        if pixels < whole:
            inside_EE = instance_map(scene)[_square(object_)] == index
            rows, columns = np.nonzero(inside_EE)
            left, right = int(columns.min()), int(columns.max()) + 1
            top, bottom = int(rows.min()), int(rows.max()) + 1
        x, y = object_.left, object_.top
        found.append(((float(x + left), float(y + top), float(x + right), float(y + bottom)), pixels))
    return found
