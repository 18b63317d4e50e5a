"""Images of a recipe with a frozen image tower: the features of both splits, and what the tower learns from them.

Shapes: W width of the features, K width after the projection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from rich.progress import Progress
from torch import Tensor

from sparc_bench.cards.recipe import Recipe
from sparc_bench.dataset import Examples
from sparc_bench.training import frozen_features
from sparc_bench.training.fitted_buffers import evenly, fitted_buffers
from sparc_bench.training.frozen_features import FrozenFeatures, load_features
from sparc_bench.training.frozen_tower import FrozenTower
from sparc_bench.training.loading import Prepared
from sparc_bench.training.pixels import load_pixels


def frozen_images(
    recipe: Recipe, tower: FrozenTower, train: Examples, val: Examples, progress: Progress
) -> tuple[Prepared, Prepared, Mapping[str, Tensor]]:
    """Features of both splits, or pixels where they would be too large, and the tower's buffers fitted on the first.

    Raises:
        UserError: see `load_features` and `fitted_buffers`.
    """
    images, val_images = (_prepared(recipe, tower, split, progress) for split in (train, val))
    table = recipe.image
    if table is None or not (table.projection or table.position_mean):
        return images, val_images, {}
    sample = images
    if not isinstance(sample, FrozenFeatures):
        sample = _features(recipe, tower, train.take(evenly(len(train))), progress)
    fitted = fitted_buffers(sample, table.projection, table.position_mean)
    return projected(images, fitted), projected(val_images, fitted), fitted


def projected(images: Prepared, buffers: Mapping[str, Tensor]) -> Prepared:
    """Images as a tower with these buffers takes them: features behind its projection, pixels as they are."""
    matrix_WK = buffers.get("projection_WK")
    return images if matrix_WK is None or not isinstance(images, FrozenFeatures) else images.projected(matrix_WK)


@contextmanager
def counted(progress: Progress, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Function that moves a bar of a progress display, which is visible from the first image on."""
    bar = progress.add_task(what, total=total, visible=False)
    began = time.perf_counter()

    def count(done: int, total: int) -> None:
        speed = done / max(time.perf_counter() - began, 1e-3)
        said = f"{what}, {speed:.0f} images/s" if done else what
        progress.update(bar, completed=done, total=total, visible=True, description=said)

    try:
        yield count
    finally:
        progress.remove_task(bar)


def _prepared(recipe: Recipe, tower: FrozenTower, data: Examples, progress: Progress) -> Prepared:
    if 2 * len(data) * int(np.prod(tower.shape)) <= frozen_features.FEATURES_LIMIT:
        return _features(recipe, tower, data, progress)
    with counted(progress, f"{recipe.name}: decoding {data.dataset} {data.split}", len(data)) as count:
        return load_pixels(data, tower.transform, recipe.data.max_unreadable, count)


def _features(recipe: Recipe, tower: FrozenTower, data: Examples, progress: Progress) -> FrozenFeatures:
    what = f"{recipe.name}: features of {data.dataset} {data.split} by the frozen image tower"
    with counted(progress, what, len(data)) as count:
        return load_features(data, tower, recipe.data.max_unreadable, count, workers=os.cpu_count() or 1)
