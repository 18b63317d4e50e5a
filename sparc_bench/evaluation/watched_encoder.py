"""An encoder with an observer: it counts images for the progress bar and remembers where each one's grid lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sparc_bench.encoder import Encoder
from sparc_bench.features import Detections, ImageFeatures, TextFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import Followed, View
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
        self._areas: dict[tuple[str, Box | None, tuple[int, int] | None], Tensor] = {}
        self._grids: dict[tuple[int, int] | None, tuple[int, int]] = {}

    def geometry(self, views: Sequence[View]) -> tuple[tuple[int, int], Tensor]:
        """Grid and area_N4 of views of one input size; only those never encoded with patches are opened again."""
        size = views[0].size
        missing = [view for view in views if view.key not in self._areas]
        if size not in self._grids:
            self._remember(views[:1], self.inner.images(views[:1], frozenset({"patches"})))
        for view in missing:
            _, area = self.inner.preprocess(view)
            self._areas[view.key] = torch.tensor(area)
        return self._grids[size], torch.stack([self._areas[view.key] for view in views])

    def _remember(self, views: Sequence[View], features: ImageFeatures) -> None:
        if features.grid is None or features.area_N4 is None:
            return
        for view, area in zip(views, features.area_N4.cpu(), strict=True):
            self._grids[view.size] = features.grid
            self._areas[view.key] = area

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of the inner encoder; each view is counted."""
        followed = Followed(groups)
        for features in self.inner.stream(followed, need):
            self._remember(followed.batch(len(features)), features)
            self.count(len(features))
            yield features

    def detect(self, views: Sequence[View], texts: TextFeatures) -> Detections:
        """Detections of the inner detector; each view is counted."""
        found = self.inner.detect(views, texts)
        self.count(len(views))
        return found

    def propose(self, views: Sequence[View]) -> Detections:
        """Proposals of the inner encoder; each view is counted."""
        found = self.inner.propose(views)
        self.count(len(views))
        return found

    def generate(self, views: Sequence[View], prompt: str) -> list[str]:
        """Texts of the inner encoder; each view is counted."""
        found = self.inner.generate(views, prompt)
        self.count(len(views))
        return found
