"""Top-1 caption of each image: the best of a pool by the model's own score, or the caption of another system.

Shapes: N images, U distinct candidate captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder, image_need
from sparc_bench.errors import UserError
from sparc_bench.metrics.caption_words import caption_words
from sparc_bench.outputs.captions import Captions
from sparc_bench.protocol import Block, Predictions, Work
from sparc_bench.protocols._similarity_scores import DistinctTexts, ScoredTexts, bounded

IMAGES_AT_ONCE = 64


def retrieved_captions(
    encoder: Encoder, work: Work, candidates: DistinctTexts, without_own: bool = False
) -> Iterator[Block]:
    """Blocks of the candidates at the top by image-to-text score: `example` and `candidate`, a row for each.

    Args:
        encoder: the model.
        work: the images.
        candidates: captions of the whole data split and its pool.
        without_own: whether an image's own captions are no candidates of its own.

    Raises:
        UserError: `without_own` leaves an image without candidates.
    """
    images = sum(map(len, work.parts))
    scored: ScoredTexts | None = None
    for part, features in work.images(encoder, image_need(encoder)):
        scored = scored or ScoredTexts(encoder, candidates.texts, images)
        rows, chosen, done = [], [], int(part.index_N[0])
        for some in bounded(encoder, features):
            to_text_NU = scored.scores(some)[0]
            for start in range(0, len(to_text_NU), IMAGES_AT_ONCE):
                score_NU = to_text_NU[start : start + IMAGES_AT_ONCE]
                here = slice(done, done + len(score_NU))
                done += len(score_NU)
                own_NU = own_candidates(work.data, here, candidates) if without_own else None
                row, candidate = np.nonzero(_top(score_NU, own_NU))
                rows.append(row + here.start)
                chosen.append(candidate)
        yield part.block(example=np.concatenate(rows), candidate=np.concatenate(chosen).astype(np.int32))


def _top(score_NU: Float[ndarray, "N U"], own_NU: Bool[ndarray, "N U"] | None) -> Bool[ndarray, "N U"]:
    if own_NU is None:
        return np.asarray(score_NU == score_NU.max(axis=1, keepdims=True))
    if own_NU.all(axis=1).any():
        raise UserError("The pool holds no caption of another image: take more images, or give a pool.")
    best_N1 = score_NU.max(axis=1, keepdims=True, where=~own_NU, initial=-np.inf)
    return np.asarray((score_NU == best_N1) & ~own_NU)


def given_captions(outputs: Captions, data: Examples) -> tuple[list[str], tuple[str, ...]]:
    """Another system's captions: one string per image, and notes about the file.

    A caption that differs from one of the image's own only in case or punctuation is replaced by it, so that it counts
    as the image's own.
    """
    captions_N, notes = outputs.of(data.examples)
    return [_own_wording(caption, example) for caption, example in zip(captions_N, data.examples, strict=True)], notes


def given_block(given_N: Sequence[str], pool: Sequence[str]) -> Block:
    """The block of another system's captions (`given`), each of which is the candidate at the top of its image."""
    candidates, example_N = DistinctTexts.of((*pool, *given_N)), np.arange(len(given_N))
    chosen_N = candidates.index_M[len(pool) :].astype(np.int32)
    return Block(example_N, {"example": example_N, "candidate": chosen_N, "given": np.array(given_N, dtype=np.str_)})


def candidate_texts(predictions: Predictions, pool: Sequence[str]) -> DistinctTexts:
    """The pool, and after it the captions that another system gave."""
    given = "given" in predictions.blocks[0].arrays
    return DistinctTexts.of((*pool, *(predictions.joined("given").tolist() if given else ())))


def top1_captions(
    predictions: Predictions, images: int, candidates: int
) -> Iterator[tuple[slice, Bool[ndarray, "N U"]]]:
    """Batches (rows of images, mask of the candidates at the top)."""
    example_R, candidate_R = predictions.joined("example"), predictions.joined("candidate")
    for start in range(0, images, IMAGES_AT_ONCE):
        rows = slice(start, min(start + IMAGES_AT_ONCE, images))
        here = slice(*np.searchsorted(example_R, (rows.start, rows.stop)).tolist())
        top_NU = np.zeros((rows.stop - rows.start, candidates), dtype=bool)
        top_NU[example_R[here] - rows.start, candidate_R[here]] = True
        yield rows, top_NU


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


def own_candidates(data: Examples, rows: slice, candidates: DistinctTexts) -> Bool[ndarray, "N U"]:
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
