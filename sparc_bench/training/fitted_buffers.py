"""What a frozen image tower learns from the training images before a training: principal components, position means.

Shapes: N images, S vectors of an image, P patches, W width of the features, K width after the projection, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sparc_bench.errors import UserError
from sparc_bench.training.frozen_features import FrozenFeatures

SAMPLED_IMAGES = 2048
"""Training images that principal components are fitted on, evenly spaced over the split."""


def evenly(count: int, most: int = SAMPLED_IMAGES) -> list[int]:
    """At most `most` of `count` positions, evenly spaced.

    >>> evenly(10, 4)
    [0, 2, 5, 7]
    """
    return [position * count // most for position in range(most)] if count > most else list(range(count))


def fitted_buffers(features: FrozenFeatures, projection: int | None, position_mean: bool) -> dict[str, Tensor]:
    """The buffers `projection_WK` and `mean_PK` of an image tower from the features of training images.

    Args:
        features: features of training images before the projection.
        projection: number of principal components; None: no projection.
        position_mean: whether the tower takes off a mean per grid position.

    Raises:
        UserError: there are fewer components than `projection`.
    """
    fitted: dict[str, Tensor] = {}
    if projection is not None:
        chosen = evenly(len(features))
        width = features.array_NSV.shape[2]
        if projection > width:
            raise UserError(f"image.projection ({projection}) is above the width of the features ({width}): lower it.")
        parts = (features.rows(chosen[start : start + 64]) for start in range(0, len(chosen), 64))
        fitted["projection_WK"] = torch.from_numpy(principal_components([*parts], projection)).float()
        features = features.projected(fitted["projection_WK"])
    if position_mean:
        fitted["mean_PK"] = torch.from_numpy(mean_per_position(features.blocks())).float()
    return fitted


def principal_components(parts: list[ndarray], count: int) -> ndarray:
    """The first right singular vectors WK of the centred rows of all parts (... W), in float64.

    Each has a positive largest component, so that its sign depends on no library.
    """
    width = parts[0].shape[-1]
    rows, sum_W, product_WW = 0, np.zeros(width), np.zeros((width, width))
    for part in parts:
        part_RW = part.reshape(-1, width).astype(np.float64)
        rows, sum_W = rows + len(part_RW), sum_W + part_RW.sum(0)
    mean_W = sum_W / rows
    for part in parts:
        centred_RW = part.reshape(-1, width).astype(np.float64) - mean_W
        product_WW += centred_RW.T @ centred_RW
    _, vectors_WW = np.linalg.eigh(product_WW)  # by ascending eigenvalue
    first_WK = vectors_WW[:, ::-1][:, :count]
    largest_K = np.take_along_axis(first_WK, np.abs(first_WK).argmax(0)[None], 0)[0]
    return np.ascontiguousarray(first_WK * np.where(largest_K < 0, -1.0, 1.0))


def mean_per_position(blocks: Iterable[ndarray]) -> ndarray:
    """Mean of the features over all images, for each position: SW, summed in float64."""
    count, sum_SW = 0, np.zeros(())
    for block_BSW in blocks:
        count, sum_SW = count + len(block_BSW), sum_SW + block_BSW.sum(0, dtype=np.float64)
    return sum_SW / count
