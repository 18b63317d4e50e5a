"""Base class for wrappers of an encoder; subclasses override the methods that they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Detector, Encoder
from sparc_bench.features import Detections, ImageFeatures, Regions, TextFeatures
from sparc_bench.images.item import Box, ImageItem


class EncoderWrapper:
    """An encoder that delegates every method to another one (see `sparc_bench.encoder.Encoder`).

    Attributes:
        inner: the wrapped encoder.
    """

    card: ModelCard
    gives: frozenset[str]
    paths: Mapping[str, bool]
    prompt_ensemble: Literal["embeddings", "scores"]
    weights_hash: str
    precision: str
    device: torch.device

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner
        self.card, self.gives, self.paths = inner.card, inner.gives, inner.paths
        self.prompt_ensemble, self.weights_hash = inner.prompt_ensemble, inner.weights_hash
        self.precision, self.device = inner.precision, inner.device

    def preprocess(self, item: ImageItem, size: int | None = None) -> tuple[Tensor, Box]:
        """Pixels and area from the wrapped encoder."""
        return self.inner.preprocess(item, size)

    def images(self, items: Sequence[ImageItem], need: frozenset[str], size: int | None = None) -> ImageFeatures:
        """Image features from the wrapped encoder."""
        return self.inner.images(items, need, size)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Text features from the wrapped encoder."""
        return self.inner.texts(texts, need)

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores by the wrapped encoder's rule."""
        return self.inner.similarity(images, texts, regions, path)

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Dense scores by the wrapped encoder's rule."""
        return self.inner.dense_scores(images, texts, path)

    def detect(self, items: Sequence[ImageItem], texts: Sequence[str]) -> Detections:
        """Detections from the wrapped encoder, which is a detector."""
        return cast("Detector", self.inner).detect(items, texts)

    def untrained(self) -> Encoder | None:
        """The wrapped encoder's model with its initial weights, without the wrapper."""
        return self.inner.untrained()
