"""An encoder with an observer: it counts images for the progress bar and remembers where each one's grid lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sparc_bench.encoder import Encoder, stream
from sparc_bench.features import Detections, ImageFeatures
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.models.encoder_wrapper import EncoderWrapper


class WatchedEncoder(EncoderWrapper):
    """Passes everything on to `inner` (see `sparc_bench.encoder.Encoder`).

    Attributes:
        inner: the encoder itself.
        count: called with the number of images after each batch.
    """

    def __init__(self, inner: Encoder, count: Callable[[int], None]) -> None:
        super().__init__(inner)
        self.count = count
        self._areas: dict[tuple[str, Box | None, int | None], Tensor] = {}
        self._grids: dict[int | None, tuple[int, int]] = {}

    def geometry(self, items: Sequence[ImageItem], size: int | None = None) -> tuple[tuple[int, int], Tensor]:
        """Grid and area_N4 of images; only those that were never encoded with patches are opened again."""
        missing = [item for item in items if (item.id, item.crop, size) not in self._areas]
        if size not in self._grids and items:
            self._remember(items[:1], self.inner.images(items[:1], frozenset({"patches"}), size), size)
        for item in missing:
            _, area = self.inner.preprocess(item, size)
            self._areas[item.id, item.crop, size] = torch.tensor(area)
        return self._grids[size], torch.stack([self._areas[item.id, item.crop, size] for item in items])

    def _remember(self, items: Sequence[ImageItem], features: ImageFeatures, size: int | None) -> None:
        if features.grid is None or features.area_N4 is None:
            return
        self._grids[size] = features.grid
        for item, area in zip(items, features.area_N4.cpu(), strict=True):
            self._areas[item.id, item.crop, size] = area

    def images(self, items: Sequence[ImageItem], need: frozenset[str], size: int | None = None) -> ImageFeatures:
        """Features of the inner encoder; each image is counted."""
        return ImageFeatures.concat(list(self.stream(items, need, len(items), size)))

    def stream(
        self, items: Sequence[ImageItem], need: frozenset[str], most: int, size: int | None = None
    ) -> Iterator[ImageFeatures]:
        """Features of the inner encoder; each image is counted."""
        done = 0
        for features in stream(self.inner, items, need, most, size):
            self._remember(items[done : done + len(features)], features, size)
            self.count(len(features))
            done += len(features)
            yield features

    def detect(self, items: Sequence[ImageItem], texts: Sequence[str]) -> Detections:
        """Detections of the inner detector; each image is counted."""
        found = super().detect(items, texts)
        self.count(len(items))
        return found
