"""Shapes and patterns as integer arrays, sampled at 2 x 2 points per pixel."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from sparc_bench.scenes.world import SHAPES

# vertices (column, row) in thousandths of the object's square, clockwise
_POLYGONS: dict[str, tuple[tuple[int, int], ...]] = {
    "square": ((60, 60), (940, 60), (940, 940), (60, 940)),
    "triangle": ((500, 30), (1000, 970), (0, 970)),
    "cross": (
        *((330, 20), (670, 20), (670, 330), (980, 330), (980, 670), (670, 670)),
        *((670, 980), (330, 980), (330, 670), (20, 670), (20, 330), (330, 330)),
    ),
    "star": (
        *((500, 0), (655, 315), (1000, 365), (750, 610), (810, 960)),
        *((500, 795), (190, 960), (250, 610), (0, 365), (345, 315)),
    ),
}


def _inside_polygon(vertices: tuple[tuple[int, int], ...], points: int) -> Bool[ndarray, "S S"]:
    """True for points of a `points` x `points` grid inside a polygon (even-odd rule), by integer cross products."""
    # a grid point k lies at (2 k + 1) / (2 points) of the edge; everything is scaled by 2000 * points
    at_S = (2 * np.arange(points, dtype=np.int64) + 1) * 1000
    column_SS, row_SS = at_S[None, :], at_S[:, None]
    inside_SS = np.zeros((points, points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(vertices, (*vertices[1:], vertices[0]), strict=True):
        x0, y0, x1, y1 = (2 * points * value for value in (x0, y0, x1, y1))
        crosses_SS = (row_SS >= min(y0, y1)) & (row_SS < max(y0, y1))
        turn_SS = (x1 - x0) * (row_SS - y0) - (column_SS - x0) * (y1 - y0)
        inside_SS ^= crosses_SS & (turn_SS > 0 if y1 > y0 else turn_SS < 0)
    return inside_SS


def _inside_disc(points: int, column: int, row: int, radius: int) -> Bool[ndarray, "S S"]:
    """True for points within a disc; centre and radius in thousandths of the edge."""
    at_S = (2 * np.arange(points, dtype=np.int64) + 1) * 1000
    across_SS = (at_S - 2 * points * column)[None, :] ** 2 + (at_S - 2 * points * row)[:, None] ** 2
    inside_SS: Bool[ndarray, "S S"] = across_SS <= (2 * points * radius) ** 2
    return inside_SS


def _outline(shape: str, points: int) -> Bool[ndarray, "S S"]:
    if shape == "circle":
        return _inside_disc(points, 500, 500, 490)
    if shape == "heart":
        lobes_SS = _inside_disc(points, 270, 310, 270) | _inside_disc(points, 730, 310, 270)
        point_SS = _inside_polygon(((35, 440), (500, 300), (965, 440), (500, 970)), points)
        heart_SS: Bool[ndarray, "S S"] = lobes_SS | point_SS
        return heart_SS
    return _inside_polygon(_POLYGONS[shape], points)


def _accented(pattern: str, points: int) -> Bool[ndarray, "S S"]:
    """True for points in the accent colour: none, slanting stripes, or a lattice of dots."""
    at_S = np.arange(points)
    if pattern == "striped":
        striped_SS: Bool[ndarray, "S S"] = (at_S[None, :] + at_S[:, None]) % 12 < 4
        return striped_SS
    if pattern == "dotted":
        # a lattice 5 pixels apart, every other row shifted by half, one dot at the centre
        from_centre_S = 2 * at_S + 1 - points
        row_S = (from_centre_S + 10 + 20 * 8) // 20
        down_S = from_centre_S - 20 * (row_S - 8)
        shift_S = (row_S % 2) * 10
        across_SS = (from_centre_S[None, :] + 10 + 20 * 8 + shift_S[:, None]) % 20 - 10
        dotted_SS: Bool[ndarray, "S S"] = across_SS**2 + (down_S**2)[:, None] <= 38
        return dotted_SS
    return np.zeros((points, points), dtype=bool)


@cache
def stamp(shape: str, pattern: str, extent: int) -> tuple[UInt8[ndarray, "E E"], UInt8[ndarray, "E E"]]:
    """Number of each pixel's four points in the object's colour, and in its accent colour."""
    if shape not in SHAPES:
        raise RuntimeError(f"no shape '{shape}'")
    half_SS = _outline(shape, 2 * extent)
    # mirrored, since a point exactly on an edge counts on one side only and every shape is symmetric
    outline_SS = half_SS | half_SS[:, ::-1]
    accent_SS = _accented(pattern, 2 * extent) & outline_SS
    plain_SS = outline_SS & ~accent_SS

    def per_pixel(points_SS: Bool[ndarray, "S S"]) -> UInt8[ndarray, "E E"]:
        counted: UInt8[ndarray, "E E"] = points_SS.reshape(extent, 2, extent, 2).sum((1, 3), dtype=np.uint8)
        counted.flags.writeable = False
        return counted

    return per_pixel(plain_SS), per_pixel(accent_SS)


@cache
def silhouette(shape: str, extent: int) -> Bool[ndarray, "E E"]:
    """True for the pixels of a shape: at least two of their four points lie inside."""
    plain_EE, _ = stamp(shape, "solid", extent)
    inside_EE: Bool[ndarray, "E E"] = plain_EE >= 2
    inside_EE.flags.writeable = False
    return inside_EE


@cache
def silhouette_bounds(shape: str, extent: int) -> tuple[int, int, int, int, int]:
    """Left, top, right, bottom (exclusive) of the silhouette within its square, and its number of pixels."""
    inside_EE = silhouette(shape, extent)
    rows, columns = np.flatnonzero(inside_EE.any(1)), np.flatnonzero(inside_EE.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1, int(inside_EE.sum())
