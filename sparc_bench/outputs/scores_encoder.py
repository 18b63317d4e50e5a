"""An encoder that looks scores up in a similarity matrix, by image id and exact text.

Shapes: N images, M texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sparc_bench.cards.card import Strict
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.encoders.precomputed import stored_id, stored_name
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View, in_batches
from sparc_bench.outputs.ids import IdMatch
from sparc_bench.outputs.similarity import Similarity, columns
from sparc_bench.protocol import Block, Predictions, Work

AnyOptions = TypeVar("AnyOptions", bound=Strict)


class ScoresEncoder(Encoder):
    """Encoder with the scores of a similarity matrix (see `sparc_bench.encoder.Encoder`); no image is opened."""

    card = ModelCard(name="outputs", title="a similarity matrix", family="outputs", source="a file")
    gives = frozenset({"image", "text"})
    paths: Mapping[str, bool] = {}
    prompt_ensemble: Literal["embeddings", "scores"] = "scores"
    weights_hash = ""
    precision = "as given"
    device = torch.device("cpu")

    def __init__(self, similarity: Similarity, views: Sequence[View]) -> None:
        """Match the images with the rows; raises UserError where an image has no row."""
        self._similarity = similarity
        files = {stored_id(view): view.item.file_name and stored_name(view.item.file_name, view) for view in views}
        ids = list(files)
        self._places = IdMatch.of(ids, similarity.image_ids, similarity.where, files)
        self._places.refuse_missing(ids, similarity.where)
        self._asked: set[int] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about unused rows and columns."""
        idle = sorted(set(self._similarity.column_of.values()) - self._asked)
        sentence = f"{len(idle)} texts of {self._similarity.where} are not of this task and are left out."
        return (*self._places.notes(self._similarity.where), *([sentence] if idle else []))

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """Not supported: no image is encoded."""
        raise NotImplementedError

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:  # noqa: ARG002
        """Image features that hold ids only."""
        for views in in_batches(groups, self.runtime.batch_size):
            yield ImageFeatures(tuple(stored_id(view) for view in views))

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:  # noqa: ARG002
        """Text features that hold strings only; raises UserError where a text has no column."""
        self._asked |= set(columns(self._similarity, texts))
        return TextFeatures(tuple(texts))

    def similarity(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        regions: Regions | None = None,  # noqa: ARG002
        path: str | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Scores of the matrix; the same tensor twice where one matrix serves both directions."""
        rows = np.array([self._places.index_of[item_id] for item_id in images.ids])[:, None]
        found = columns(self._similarity, texts.texts)
        to_text = torch.from_numpy(self._similarity.image_to_text_NM[rows, found])
        if self._similarity.text_to_image_NM is self._similarity.image_to_text_NM:
            return to_text, to_text
        return to_text, torch.from_numpy(self._similarity.text_to_image_NM[rows, found])

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Not supported: a similarity matrix has no patches."""
        raise NotImplementedError


def similarity_encoder(similarity: Similarity, data: Examples, options: Strict) -> ScoresEncoder:  # noqa: ARG001 - see `OUTPUTS` in sparc_bench.protocols
    """An encoder with the scores of a matrix, for a protocol that needs all images at once."""
    return ScoresEncoder(similarity, data.views)


def similarity_predictions(
    predict: Callable[[Encoder, Work, AnyOptions], Iterator[Block]],
    units: Callable[[Examples, AnyOptions], Sequence[ndarray]] | None = None,
) -> Callable[[Similarity, Examples, AnyOptions], Predictions]:
    """A protocol's `predict`, with its `units` if it has them, as a function of a matrix instead of an encoder."""

    def predictions(similarity: Similarity, data: Examples, options: AnyOptions) -> Predictions:
        encoder = ScoresEncoder(similarity, data.views)
        work = Work.whole(data, None if units is None else units(data, options))
        return Predictions(tuple(predict(encoder, work, options)), notes=encoder.notes)

    return predictions
