"""Weights of boxes and masks over an image's patch grid, and fractions of classes in its cells.

The grid of `rows` x `columns` cells covers an area of the original image, given in pixels as left, top, right, bottom;
pixels outside the area have no patch. Cells are row-major.

Shapes: R regions, P cells (rows x columns), H W pixels, C classes, Y X rectangles
between V = Y + 1 and U = X + 1 edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray


def axis_overlaps(
    low_R: Shaped[ndarray, "R"],
    high_R: Shaped[ndarray, "R"],
    start_R: Shaped[ndarray, "R"],
    stop_R: Shaped[ndarray, "R"],
    cells: int,
) -> Float[ndarray, "R {cells}"]:
    """Overlap, in pixels, of each interval low..high with each of `cells` equal parts of start..stop.

    >>> axis_overlaps(*(np.array([edge]) for edge in (1.0, 5.0, 0.0, 8.0)), cells=2)
    array([[3., 1.]])
    """
    edges_RE = start_R[:, None] + (stop_R - start_R)[:, None] * (np.arange(cells + 1) / cells)
    shared_RC = np.minimum(high_R[:, None], edges_RE[:, 1:]) - np.maximum(low_R[:, None], edges_RE[:, :-1])
    return np.asarray(np.maximum(shared_RC, 0.0))


def box_weights(
    boxes_R4: Shaped[ndarray, "R 4"], areas_R4: Shaped[ndarray, "R 4"], grid: tuple[int, int]
) -> Float[ndarray, "R P"]:
    """Share of each box's pixels in each grid cell: RoIAlign's average with the exact overlap instead of samples.

    A box is clipped to its area. If the clipped box is empty, the cell nearest to the box's centre has all the weight.
    Every row sums to 1.

    Source: He et al., Mask R-CNN, arXiv 1703.06870 (RoIAlign); without its sampling as in Jiang et al., Acquisition of
    Localization Confidence, arXiv 1807.11590 (precise RoI pooling).
    """
    boxes_R4, areas_R4 = np.asarray(boxes_R4, dtype=np.float64), np.asarray(areas_R4, dtype=np.float64)
    left_R, top_R, right_R, bottom_R = areas_R4.T
    rows, columns = grid
    across_RC = axis_overlaps(boxes_R4[:, 0], boxes_R4[:, 2], left_R, right_R, columns)
    down_RK = axis_overlaps(boxes_R4[:, 1], boxes_R4[:, 3], top_R, bottom_R, rows)
    empty_R = (across_RC.sum(1) <= 0) | (down_RK.sum(1) <= 0)
    if empty_R.any():
        centres_E2 = (boxes_R4[empty_R, :2] + boxes_R4[empty_R, 2:]) / 2
        across_RC[empty_R] = np.eye(columns)[_cell(centres_E2[:, 0], left_R[empty_R], right_R[empty_R], columns)]
        down_RK[empty_R] = np.eye(rows)[_cell(centres_E2[:, 1], top_R[empty_R], bottom_R[empty_R], rows)]
    weights_RP = (down_RK[:, :, None] * across_RC[:, None, :]).reshape(len(boxes_R4), rows * columns)
    return np.asarray(weights_RP / weights_RP.sum(axis=1, keepdims=True))


def mask_weights(
    mask_HW: Bool[ndarray, "H W"], area_4: Shaped[ndarray, "4"], grid: tuple[int, int]
) -> Float[ndarray, "P"]:
    """Share of a mask's pixels in each grid cell; a pixel across cells is split by area.

    Pixels outside the area are left out; if all are, the cell nearest to the mask's centre has all the weight.

    Raises:
        ValueError: the mask has no pixel.
    """
    if not mask_HW.any():
        raise ValueError("a mask without pixels has no weights")
    weights_P = (_pixel_sums(mask_HW.astype(np.float64)[None], area_4, grid)[0]).reshape(-1)
    if weights_P.sum() > 0:
        return np.asarray(weights_P / weights_P.sum())
    rows_X, columns_X = np.nonzero(mask_HW)
    centre_4 = np.array([columns_X.mean() + 0.5, rows_X.mean() + 0.5] * 2)
    return np.asarray(box_weights(centre_4[None], np.asarray(area_4)[None], grid)[0])


def class_fractions(
    truth_HW: Int[ndarray, "H W"], classes: int, area_4: Shaped[ndarray, "4"], grid: tuple[int, int]
) -> Float[ndarray, "C rows columns"]:
    """Share of each class among the labelled pixels of every grid cell; 0 in cells without labelled pixels.

    Labels outside 0..classes-1 count as unlabelled.
    """
    present = [label for label in np.unique(truth_HW) if 0 <= label < classes]
    fractions_CKL = np.zeros((classes, *grid))
    if present:
        one_hot_CHW = (truth_HW[None] == np.array(present)[:, None, None]).astype(np.float64)
        fractions_CKL[present] = _pixel_sums(one_hot_CHW, area_4, grid)
    labelled_KL = fractions_CKL.sum(axis=0)
    return np.asarray(np.divide(fractions_CKL, labelled_KL, out=np.zeros_like(fractions_CKL), where=labelled_KL > 0))


def cell_sums(
    values_CYX: Shaped[ndarray, "C Y X"],
    edges_down: Shaped[ndarray, "V"],
    edges_across: Shaped[ndarray, "U"],
    area_4: Sequence[float] | ndarray,
    grid: tuple[int, int],
) -> Float[ndarray, "C rows columns"]:
    """Sum of values times area in every cell, for rectangles between these edges, in pixels; none is split but by area.

    Pixels are the rectangles between the whole numbers: their edges are 0 to the height, and 0 to the width.
    """
    left, top, right, bottom = (float(edge) for edge in area_4)
    _, height, width = values_CYX.shape
    down_YK = axis_overlaps(edges_down[:-1], edges_down[1:], *_spread(top, bottom, height), grid[0])
    across_XL = axis_overlaps(edges_across[:-1], edges_across[1:], *_spread(left, right, width), grid[1])
    return np.asarray(down_YK.T @ values_CYX @ across_XL)


def box_raster(
    boxes_R4: Shaped[ndarray, "R 4"], edges_down: Shaped[ndarray, "V"], edges_across: Shaped[ndarray, "U"]
) -> Bool[ndarray, "Y X"]:
    """The rectangles between these edges that lie in any of the boxes, whose own edges are among them.

    >>> box_raster(np.array([[0.5, 0, 2, 1]]), np.array([0, 1]), np.array([0, 0.5, 2]))
    array([[False,  True]])
    """
    inside_YX = np.zeros((len(edges_down) - 1, len(edges_across) - 1), dtype=bool)
    for left, top, right, bottom in boxes_R4:
        rows = slice(*np.searchsorted(edges_down, [top, bottom]).tolist())
        inside_YX[rows, slice(*np.searchsorted(edges_across, [left, right]).tolist())] = True
    return inside_YX


def _pixel_sums(values_CHW: ndarray, area_4: Sequence[float] | ndarray, grid: tuple[int, int]) -> ndarray:
    """Sum of the pixel values in every cell (C, rows, columns); a pixel across cells is split by area."""
    _, height, width = values_CHW.shape
    return cell_sums(values_CHW, np.arange(height + 1.0), np.arange(width + 1.0), area_4, grid)


def _spread(start: float, stop: float, length: int) -> tuple[ndarray, ndarray]:
    return np.full(length, start), np.full(length, stop)


def _cell(position_R: ndarray, start_R: ndarray, stop_R: ndarray, cells: int) -> ndarray:
    """Index of the cell at a position, or of the nearest cell."""
    cell_R: ndarray = np.floor((position_R - start_R) / (stop_R - start_R) * cells)
    return np.asarray(np.clip(cell_R, 0, cells - 1), dtype=np.intp)
