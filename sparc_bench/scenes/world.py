"""The constants of scenes: shapes, colours, patterns, sizes in pixels, places, relations."""

from __future__ import annotations

SIDE = 64
"""Height and width of an image in pixels."""

MAX_OBJECTS = 4

SHAPES = ("circle", "square", "triangle", "cross", "star", "heart")

RGB = {
    "red": (208, 24, 32),
    "orange": (250, 130, 10),
    "yellow": (248, 224, 32),
    "green": (24, 140, 48),
    "blue": (24, 64, 208),
    "purple": (164, 36, 168),
}
"""Colour name -> sRGB in 0..255; at least 40 apart in CIELAB (CIE 1976) from each other and from every background."""

COLOURS = tuple(RGB)

ACCENT = {
    "red": (250, 214, 214),
    "orange": (92, 36, 0),
    "yellow": (104, 84, 0),
    "green": (206, 244, 206),
    "blue": (206, 216, 252),
    "purple": (240, 210, 250),
}
"""Colour name -> sRGB of its stripes and dots: a far lighter or darker tone of the same hue."""

PATTERNS = ("solid", "striped", "dotted")

EXTENTS = {"small": (14, 15, 16, 17), "large": (24, 25, 26, 27, 28)}
"""Size name -> possible edges of an object's square in pixels."""

SIZES = tuple(EXTENTS)

ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")

RELATIONS = ("left of", "right of", "above", "below")

MARGIN = 10
"""Least distance of two centres, in pixels, along a relation's axis."""

FIELDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "size": SIZES,
    "row": ROWS,
    "column": COLUMNS,
}
"""Field of a description -> its possible values."""


def zone(centre: float) -> int | None:
    """The third of an axis (0, 1 or 2) that a centre lies in; None in the gaps between, which have no place word.

    `centre` in pixels: up to 24 is left (top), 27 to 37 middle, from 40 on right (bottom).
    """
    if centre <= 24:
        return 0
    if centre >= 40:
        return 2
    return 1 if 27 <= centre <= 37 else None
