"""Top-1 caption of each image: the best of a pool by the model's own score, or the caption of another system.

Shapes: N images, U distinct candidate captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from sparc_bench.dataset import DataSplit, Example
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.metrics.caption_words import caption_words
from sparc_bench.outputs.captions import Captions
from sparc_bench.protocols._similarity_scores import DistinctTexts, similarity_batches

IMAGES_AT_ONCE = 64

Top1Captions = Callable[[DistinctTexts], Iterator[tuple[slice, Bool[ndarray, "N U"]]]]
"""Function of the candidates that yields batches (rows of images, mask of the candidates at the top)."""


def retrieved_captions(encoder: Encoder, data: DataSplit, without_own: bool = False) -> Top1Captions:
    """Top-1 captions by image-to-text score; `without_own` removes an image's own captions from its candidates.

    Raises:
        UserError: `without_own` leaves an image without candidates.
    """

    def chosen(candidates: DistinctTexts) -> Iterator[tuple[slice, Bool[ndarray, "N U"]]]:
        for rows, to_text, _ in similarity_batches(encoder, data.views, candidates.texts):
            for start in range(rows.start, rows.stop, IMAGES_AT_ONCE):
                part = slice(start, min(start + IMAGES_AT_ONCE, rows.stop))
                score_NU = to_text[part.start - rows.start : part.stop - rows.start]
                if not without_own:
                    yield part, score_NU == score_NU.max(axis=1, keepdims=True)
                    continue
                own_NU = own_candidates(data, part, candidates)
                if own_NU.all(axis=1).any():
                    raise UserError("The pool holds no caption of another image: take more images, or give a pool.")
                best_N1 = score_NU.max(axis=1, keepdims=True, where=~own_NU, initial=-np.inf)
                yield part, (score_NU == best_N1) & ~own_NU

    return chosen


def output_captions(outputs: Captions, data: DataSplit) -> tuple[list[str], tuple[str, ...], Top1Captions]:
    """Another system's captions: (one string per image, notes about the file, the same captions as `Top1Captions`).

    A caption that differs from one of the image's own only in case or punctuation is replaced by it, so that it counts
    as the image's own. The candidates must end with these strings.
    """
    captions_N, notes = outputs.of(data.examples)
    texts_N = [_own_wording(caption, example) for caption, example in zip(captions_N, data.examples, strict=True)]

    def chosen(candidates: DistinctTexts) -> Iterator[tuple[slice, Bool[ndarray, "N U"]]]:
        place_N = candidates.index_M[len(candidates.index_M) - len(texts_N) :]
        for start in range(0, len(texts_N), IMAGES_AT_ONCE):
            part = slice(start, min(start + IMAGES_AT_ONCE, len(texts_N)))
            yield part, place_N[part, None] == np.arange(len(candidates.texts))

    return texts_N, notes, chosen


class Choices:
    """Top-1 candidate of each image; candidates that tie have equal shares.

    Attributes:
        hit_N: share of the image's own captions.
    """

    def __init__(self, images: int) -> None:
        self.hit_N = np.zeros(images)
        self._tied_N = np.zeros(images, dtype=np.int64)
        self._first_N = np.zeros(images, dtype=np.int64)

    def add(self, rows: slice, top_NU: Bool[ndarray, "N U"], own_NU: Bool[ndarray, "N U"]) -> Float[ndarray, "N U"]:
        """Add a batch of images; returns each candidate's share."""
        choice_NU: ndarray = top_NU / top_NU.sum(axis=1, keepdims=True)
        self.hit_N[rows] = (choice_NU * own_NU).sum(axis=1)
        self._tied_N[rows] = top_NU.sum(axis=1)
        self._first_N[rows] = top_NU.argmax(axis=1)
        return choice_NU

    @property
    def ties(self) -> int:
        """Number of images with several candidates at the top."""
        return int((self._tied_N > 1).sum())

    @property
    def misses(self) -> int:
        """Number of images (the rounded sum of shares) whose top-1 caption is not one of their own."""
        return round(float((1 - self.hit_N).sum()))

    def retrieved_N(self, candidates: DistinctTexts) -> Int[ndarray, "N"]:
        """First candidate at the top of each image, as an index into the M texts."""
        first_place_U = np.unique(candidates.index_M, return_index=True)[1]
        return np.asarray(first_place_U[self._first_N])


def pool_strings(candidates: DistinctTexts, pool: int) -> Bool[ndarray, "U"]:
    """Mask of the candidates among the first `pool` texts, without captions that only another system gave."""
    return np.asarray(np.arange(len(candidates.texts)) <= candidates.index_M[:pool].max())


def own_candidates(data: DataSplit, rows: slice, candidates: DistinctTexts) -> Bool[ndarray, "N U"]:
    """Mask of the candidates that are captions of the images `rows`; a string may belong to several images."""
    image_M = data.caption_image_M
    chosen_M = np.flatnonzero((image_M >= rows.start) & (image_M < rows.stop))
    own_NU = np.zeros((rows.stop - rows.start, len(candidates.texts)), dtype=bool)
    own_NU[image_M[chosen_M] - rows.start, candidates.index_M[chosen_M]] = True
    return own_NU


def _own_wording(caption: str, example: Example) -> str:
    """Own caption of the image with the same words, or else `caption` itself."""
    words = caption_words(caption, "keep")
    return next((own for own in example.captions if caption_words(own, "keep") == words), caption)
