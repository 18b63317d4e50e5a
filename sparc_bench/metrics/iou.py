"""Intersection and union of predicted and true pixels, from scores on a patch grid.

Shapes: C classes, K L grid rows and columns, H W pixels, X scored pixels, G images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from numpy import ndarray

STRIP = 200_000
"""Scores (classes x pixels) that are upsampled at once: bounded memory, and small enough for the CPU cache."""


@dataclass(frozen=True)
class PixelCounts:
    """Pixel counts of one image per class (with fractions of a pixel for ties), and the number of tied pixels."""

    intersection_C: Float[ndarray, "C"]
    predicted_C: Float[ndarray, "C"]
    truth_C: Float[ndarray, "C"]
    ties: int

    def __add__(self, other: PixelCounts) -> PixelCounts:
        """Counts of two disjoint sets of pixels."""
        return PixelCounts(
            self.intersection_C + other.intersection_C,
            self.predicted_C + other.predicted_C,
            self.truth_C + other.truth_C,
            self.ties + other.ties,
        )


def pixel_counts(scores_CX: Float32[ndarray, "C X"], truth_X: Int[ndarray, "X"]) -> PixelCounts:
    """Counts of the class with the highest score at every pixel against the truth.

    Ties (exactly equal scores) get the mean credit over random orders: each of t tied classes is predicted with 1/t of
    the pixel. Without pixels all counts are 0.

    >>> counts = pixel_counts(np.array([[1, 5], [1, 2]], dtype=np.float32), np.array([0, 0]))
    >>> counts.intersection_C.tolist(), counts.predicted_C.tolist(), counts.ties
    ([1.5, 0.0], [1.5, 0.5], 1)
    """
    classes, pixels = scores_CX.shape
    truth_C = np.bincount(truth_X, minlength=classes).astype(np.float64)
    if pixels == 0:
        return PixelCounts(np.zeros(classes), np.zeros(classes), truth_C, 0)
    predicted_X = scores_CX.argmax(axis=0)
    best_X = np.take_along_axis(scores_CX, predicted_X[None], axis=0)[0]
    tied_X = np.count_nonzero(scores_CX == best_X, axis=0)
    clear_X = tied_X == 1
    predicted_C = np.bincount(predicted_X[clear_X], minlength=classes).astype(np.float64)
    hits_X = clear_X & (predicted_X == truth_X)
    intersection_C = np.bincount(truth_X[hits_X], minlength=classes).astype(np.float64)
    ties = int(pixels - np.count_nonzero(clear_X))
    if ties:
        credit_CX = (scores_CX[:, ~clear_X] == best_X[~clear_X]) / tied_X[~clear_X]
        predicted_C += credit_CX.sum(axis=1)
        truth_of_tied_X = truth_X[~clear_X]
        intersection_C += np.bincount(truth_of_tied_X, credit_CX[truth_of_tied_X, np.arange(ties)], minlength=classes)
    return PixelCounts(intersection_C, predicted_C, truth_C, ties)


def class_counts(predicted_X: Int[ndarray, "X"], truth_X: Int[ndarray, "X"], classes: int) -> PixelCounts:
    """Counts of predicted against true classes; a negative prediction means none and is wrong for every class.

    >>> counts = class_counts(np.array([0, 1, -1]), np.array([0, 0, 1]), 2)
    >>> counts.intersection_C.tolist(), counts.predicted_C.tolist(), counts.truth_C.tolist()
    ([1.0, 0.0], [1.0, 1.0], [2.0, 1.0])
    """
    right_X = truth_X[predicted_X == truth_X]
    right_C, predicted_C, truth_C = (
        np.bincount(of_X, minlength=classes).astype(np.float64)
        for of_X in (right_X, predicted_X[predicted_X >= 0], truth_X)
    )
    return PixelCounts(right_C, predicted_C, truth_C, 0)


def image_miou_score(intersection_GC: ndarray, union_GC: ndarray, truth_GC: ndarray) -> Float[ndarray, "G"]:
    """Mean IoU of each image over the classes present in its ground truth; NaN for an image without any.

    Source: SPARC, arXiv 2401.09865, section 4.5 ("mean of the IoU scores over the classes present in the ground-truth
    image").
    """
    present_GC = truth_GC > 0
    iou_GC = np.divide(intersection_GC, union_GC, out=np.zeros(np.shape(union_GC)), where=present_GC)
    count_G = present_GC.sum(axis=1)
    mean_G: ndarray = np.divide(iou_GC.sum(axis=1), count_G, out=np.full(len(count_G), np.nan), where=count_G > 0)
    return mean_G


def inside_area(area_4: Shaped[ndarray, "4"], size: tuple[int, int]) -> Bool[ndarray, "H W"]:
    """Mask of the pixels whose centre lies in the area that the grid covers; `size` is (height, width)."""
    left, top, right, bottom = (float(edge) for edge in area_4)
    down_H, across_W = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    return ((down_H >= top) & (down_H < bottom))[:, None] & ((across_W >= left) & (across_W < right))[None, :]


def upsampled_strips(
    scores_CKL: Float32[ndarray, "C K L"],
    area_4: Shaped[ndarray, "4"],
    size: tuple[int, int],
    rule: Literal["bilinear", "nearest"],
) -> Iterator[tuple[slice, Float32[ndarray, "C strip W"]]]:
    """Strips (rows, scores at every pixel) of an image of `size` (height, width), from top to bottom.

    bilinear: between cell centres (align_corners False), constant beyond the outermost centres; equal to
        `torch.nn.functional.interpolate` where the area is the whole image.
    nearest: the score of the cell around the pixel's centre.

    Every class goes through the same multiplications and additions, so equal scores stay exactly equal.
    """
    left, top, right, bottom = (float(edge) for edge in area_4)
    classes, rows, columns = scores_CKL.shape
    height, width = size
    low_H, high_H, share_H = _taps(top, bottom, rows, height, rule)
    low_W, high_W, share_W = _taps(left, right, columns, width, rule)
    step = max(1, STRIP // (classes * width))
    for start in range(0, height, step):
        strip = slice(start, min(start + step, height))
        share_S = share_H[strip][:, None]
        down_CSL = scores_CKL[:, low_H[strip]] * (1 - share_S) + scores_CKL[:, high_H[strip]] * share_S
        yield strip, down_CSL[:, :, low_W] * (1 - share_W) + down_CSL[:, :, high_W] * share_W


def _taps(
    start: float, stop: float, cells: int, pixels: int, rule: Literal["bilinear", "nearest"]
) -> tuple[ndarray, ndarray, ndarray]:
    """The two cells whose centres enclose each pixel's centre, and the weight of the second."""
    position_X = (np.arange(pixels) + 0.5 - start) / (stop - start) * cells
    if rule == "nearest":
        cell_X = np.clip(np.floor(position_X), 0, cells - 1).astype(np.intp)
        return cell_X, cell_X, np.zeros(pixels, dtype=np.float32)
    position_X = np.clip(position_X - 0.5, 0, cells - 1)
    low_X = np.floor(position_X).astype(np.intp)
    return low_X, np.minimum(low_X + 1, cells - 1), (position_X - low_X).astype(np.float32)


def best_constant(truth_GC: ndarray) -> dict[str, float]:
    """Reference row `constant`: each metric for the best single class predicted everywhere.

    Predicting class c everywhere gives it the IoU (pixels of c) / (all pixels) and every other present class 0.
    """
    total_C, pixels = truth_GC.sum(axis=0), truth_GC.sum()
    pixels_G, present_G = truth_GC.sum(axis=1), (truth_GC > 0).sum(axis=1)
    scored_G = pixels_G > 0
    share_GC = truth_GC[scored_G] / pixels_G[scored_G, None]
    return {
        "miou": float(total_C.max() / pixels / np.count_nonzero(total_C)),
        "pixel_accuracy": float(total_C.max() / pixels),
        "image_miou": float((share_GC / present_G[scored_G, None]).mean(axis=0).max()),
    }
