"""Images in runs: the next ones are decoded in worker processes while the model works on these.

Shapes: B images of a batch, N images of a run, H W rows and columns of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparc_bench.errors import UserError
from sparc_bench.features import Box, Encoder, ImageFeatures, ImageItem

Preprocess = Callable[[ImageItem, int | None], tuple[Tensor, Box]]
"""Opens an item: its pixels as the family batches them, and the area of the original that they show. Picklable."""

FEW = 32
"""Up to so many images are decoded in this process: starting workers would take longer."""


@runtime_checkable
class Streams(Protocol):
    """An encoder that decodes ahead."""

    def stream(
        self, items: Sequence[ImageItem], need: frozenset[str], most: int, size: int | None = None
    ) -> Iterator[ImageFeatures]:
        """Features of runs of at most `most` images, in order."""
        ...


def stream(
    encoder: Encoder, items: Sequence[ImageItem], need: frozenset[str], most: int, size: int | None = None
) -> Iterator[ImageFeatures]:
    """Features of runs of at most `most` images, in order, by the encoder's own stream where it has one."""
    if isinstance(encoder, Streams):
        yield from encoder.stream(items, need, most, size)
        return
    for start in range(0, len(items), most):
        yield encoder.images(items[start : start + most], need, size)


def runs(features: ImageFeatures, most: int) -> Iterator[ImageFeatures]:
    """The same features in runs of at most `most` images."""
    for start in range(0, len(features), most):
        yield features[start : start + most]


def pixel_batches(
    preprocess: Preprocess, items: Sequence[ImageItem], size: int | None, batch_size: int, workers: int
) -> Iterator[tuple[Sequence[ImageItem], Tensor, Tensor]]:
    """Batches of items with their pixels (B first) and areas_B4, in order.

    Raises:
        UserError: an image cannot be read; whatever a worker raised, with its own sentence.
    """
    loader = DataLoader(
        _Opened(preprocess, items, size),
        batch_size=batch_size,
        num_workers=0 if len(items) <= FEW else min(workers, -(-len(items) // batch_size)),
        collate_fn=_batch,
    )
    start = 0
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        pixels, areas_B4 = batch
        yield items[start : start + len(areas_B4)], pixels, areas_B4
        start += len(areas_B4)


class _Opened(Dataset[tuple[Tensor, Box] | UserError]):
    """Items, opened; a mistake is handed over as a value, for a worker would wrap its sentence in a traceback."""

    def __init__(self, preprocess: Preprocess, items: Sequence[ImageItem], size: int | None) -> None:
        self._preprocess, self._items, self._size = preprocess, items, size

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Box] | UserError:
        try:
            return self._preprocess(self._items[index], self._size)
        except UserError as error:
            return error


def _batch(opened: list[tuple[Tensor, Box] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    pixels, areas = [], []
    for each in opened:
        if isinstance(each, UserError):
            return each
        pixels.append(each[0])
        areas.append(each[1])
    return torch.stack(pixels), torch.tensor(areas)
