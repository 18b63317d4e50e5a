"""Base class for wrappers of an encoder; subclasses override the methods that they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from sparc_bench.encoder import Encoder
from sparc_bench.features import Detections, ImageFeatures, Regions, TextFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View


class EncoderWrapper(Encoder):
    """An encoder that delegates every method to another one (see `sparc_bench.encoder.Encoder`).

    `images` joins the wrapper's own `stream`.

    Attributes:
        inner: the wrapped encoder.
    """

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner
        self.card, self.gives, self.paths, self.runtime = inner.card, inner.gives, inner.paths, inner.runtime
        self.prompt_ensemble, self.weights_hash = inner.prompt_ensemble, inner.weights_hash
        self.precision, self.device = inner.precision, inner.device
        self.identity, self.code_hash, self.recipe = inner.identity, inner.code_hash, inner.recipe
        self.train_words, self.opens_images = inner.train_words, inner.opens_images
        self.token_path, self.logit_scale = inner.token_path, inner.logit_scale

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """Pixels and area from the wrapped encoder."""
        return self.inner.preprocess(view)

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Image features from the wrapped encoder."""
        return self.inner.stream(groups, need)

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

    def token_maps(self, images: ImageFeatures, words: Sequence[str], path: str | None = None) -> Tensor:
        """Scores of patches for words by the wrapped encoder's rule."""
        return self.inner.token_maps(images, words, path)

    def detect(self, views: Sequence[View], texts: TextFeatures) -> Detections:
        """Detections from the wrapped encoder."""
        return self.inner.detect(views, texts)

    def propose(self, views: Sequence[View]) -> Detections:
        """Proposals from the wrapped encoder."""
        return self.inner.propose(views)

    def generate(self, views: Sequence[View], prompt: str) -> list[str]:
        """Texts from the wrapped encoder."""
        return self.inner.generate(views, prompt)

    def untrained(self) -> Encoder | None:
        """The wrapped encoder's model with its initial weights, without the wrapper."""
        return self.inner.untrained()
