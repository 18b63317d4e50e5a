"""Boxes as COCO's files hold them (left, top, width and height in pixels), and what does not fit their images.

Shapes: R boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import AfterValidator

from sparc_bench.errors import UserError

SLACK = 1.0
"""Pixels by which a box may leave its image: COCO's own boxes do by rounding."""

_ENOUGH = 8
"""Fewest boxes that can show another format: of a few, all can fit by chance."""
_MANY = 0.1
"""Least share of boxes outside of their images that makes another format likely."""
_TINY = (-0.5, 1.5)
"""Ends of boxes that are fractions of their images: detectors pass 0 and 1 by a little."""
_NEARLY_ALL = 0.9
"""Least share of such boxes that makes fractions likely."""


def _plausible(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not all(map(math.isfinite, box)):
        raise ValueError(f"the box {list(box)} is not finite")
    if box[2] < 0 or box[3] < 0:
        raise ValueError(f"the box {list(box)} has a negative width or height (a box is left, top, width, height)")
    return box


CocoBox = Annotated[tuple[float, float, float, float], AfterValidator(_plausible)]
"""Left, top, width and height; finite, and of no negative extent."""


def outside_notes(
    box_R4: Float[ndarray, "R 4"], size_R2: Float[ndarray, "R 2"], where: str, named: Callable[[int], str]
) -> tuple[str, ...]:
    """Note about boxes that leave their image, if any.

    Args:
        box_R4: left, top, width and height of each box in pixels.
        size_R2: width and height of its image.
        where: the file.
        named: function from the index of a box to its name.

    Raises:
        UserError: the boxes are fractions of their images, or left, top, right and bottom.
    """
    corner_R2, extent_R2 = box_R4[:, :2], box_R4[:, 2:]
    if not len(box_R4):
        return ()
    tiny_R = (box_R4 >= _TINY[0]).all(axis=1) & ((corner_R2 + extent_R2) <= _TINY[1]).all(axis=1)
    if tiny_R.mean() >= _NEARLY_ALL and extent_R2.any() and size_R2.min() > 2:
        first = int(tiny_R.argmax())
        raise UserError(
            f"{np.count_nonzero(tiny_R)} of {len(box_R4)} boxes of {where} lie within one pixel, such as "
            f"{box_R4[first].tolist()} of {named(first)}: they seem to be fractions of the image, so write left, top, "
            "width and height in pixels."
        )
    leaves_R = _leaves(corner_R2, corner_R2 + extent_R2, size_R2)
    if not leaves_R.any():
        return ()
    first = int(leaves_R.argmax())
    said = (
        f"{np.count_nonzero(leaves_R)} of {len(box_R4)} boxes of {where} leave their image by more than a pixel, such "
        f"as {box_R4[first].tolist()} of {named(first)} in {size_R2[first, 0]:g} x {size_R2[first, 1]:g} pixels"
    )
    as_corners = (extent_R2 > corner_R2).all() and not _leaves(corner_R2, extent_R2, size_R2).any()
    if as_corners and len(box_R4) >= _ENOUGH and leaves_R.mean() >= _MANY:
        raise UserError(f"{said}, while all are inside as left, top, right, bottom: write left, top, width and height.")
    return (f"{said} (a box is left, top, width, height in pixels).",)


def _leaves(low_R2: ndarray, high_R2: ndarray, size_R2: ndarray) -> ndarray:
    return np.asarray(((low_R2 < -SLACK) | (high_R2 > size_R2 + SLACK)).any(axis=1))
