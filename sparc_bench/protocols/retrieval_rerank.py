"""Retrieval in two stages for pairwise models: global vectors select candidates, the model's own score re-ranks them.

The ranking is not exact (that of `retrieval` is): positives outside the candidates are not re-ranked, and every record
counts them.
Shapes: N images, M captions, U distinct captions, Q queries, P re-ranked pairs of an image and a distinct caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, image_need, pairwise
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures, present
from sparc_bench.metrics import cosine
from sparc_bench.metrics.ranking import FirstPositives
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._retrieval_metrics import (
    ImageCaptionPairs,
    RankingScores,
    hits_by_caption_kind,
    rank_arrays,
    retrieval_metrics,
)
from sparc_bench.protocols._similarity_scores import PackedTexts, announce_duration, image_batches, in_own_precision

VERSION = 1
TITLE = "image-text retrieval both ways, the best by global vectors re-ranked by the model's own score: hit rate R@k"
NEEDS = frozenset({"image", "text", "global"})
DATA = frozenset({"captions"})
_TEXTS_AT_ONCE, _PAIRS_AT_ONCE = 2048, 256
_COLUMNS_AT_ONCE = 512


class Options(Strict):
    """Options of the protocol in a task card."""

    ks: tuple[Number, ...]
    """k of the hit rates R@k"""
    candidates: Number
    """number of each query's best candidates, by cosine of global vectors, that the model's own score re-ranks"""
    ties: Literal["expected"]
    """expected: the mean credit over random orders of the tied candidates"""


def kept(encoder: Encoder) -> frozenset[str]:
    """Image features of all images, which are ranked together."""
    return image_need(encoder)


def score(encoder: Encoder, data: Examples, options: Options) -> Outcome:
    """Rank all captions for every image and all images for every caption, in two stages.

    Each query's best `candidates` by cosine of global vectors, with all that tie with the last of them (equal captions
    count once), come first, in the order of the model's own score; the others follow in the order of the cosine. A
    caption is true of its own image only. R@k is a hit rate, as in `retrieval`, with the same reference rows; a note
    counts the queries without a positive among the candidates.

    Raises:
        UserError: the model's own score is the cosine of its global vectors.
    """
    if not pairwise(encoder):
        raise UserError(
            f"{encoder.card.name} scores by the cosine of its global vectors, so that there is nothing to re-rank: "
            "take the task of the exact ranking (protocol retrieval)."
        )
    pairs = ImageCaptionPairs.of(data)
    texts = PackedTexts.of(encoder, pairs.distinct.texts)
    stage = _FirstStage(_cosines(encoder, data, texts), options.candidates)
    scores_P2 = _second_stage(encoder, data, texts, stage)
    to_text, images_left_out = _images_as_queries(pairs, stage, scores_P2[:, 0])
    to_image, captions_left_out = _captions_as_queries(pairs, stage, scores_P2[:, 1])
    ranked_text, ranked_image = RankingScores.of(to_text, options.ks), RankingScores.of(to_image, options.ks)
    examples, rows = rank_arrays(ranked_text, ranked_image, options.ks)
    scored, possible = len(scores_P2), stage.cosine_NU.size
    return Outcome(
        metrics=retrieval_metrics(ranked_text, ranked_image, pairs.image_M, len(data)),
        groups=hits_by_caption_kind(data, ranked_image, pairs.image_M),
        examples=examples,
        rows=rows,
        ties=ranked_text.tied_queries + ranked_image.tied_queries,
        counts={
            **pairs.counts(),
            "candidates": options.candidates,
            "pairs_scored": scored,
            "images_left_out": images_left_out,
            "captions_left_out": captions_left_out,
        },
        reference_rows=pairs.reference(options.ks),
        notes=(
            f"No exact ranking: the model's own score orders each query's {options.candidates} best candidates by the "
            f"cosine of global vectors ({scored} of {possible} pairs), all others stay below them in the cosine's "
            f"order. {images_left_out} of {len(data)} images had none of their captions among them and "
            f"{captions_left_out} of {len(pairs.image_M)} captions not their image.",
        ),
    )


class _FirstStage:
    """Cosines of all pairs, and the P pairs that are candidates of their image's or of their text's query.

    Attributes:
        cosine_NU: cosine of every image with every distinct text.
        least_N: least cosine of an image's candidates.
        least_U: least cosine of a text's candidates.
        image_P: image of each pair, ascending.
        text_P: distinct text of each pair.
        of_image_P: whether the text is a candidate of the image.
        of_text_P: whether the image is a candidate of the text.
        end_N: end of each image's pairs in the arrays over P.
    """

    def __init__(self, cosine_NU: Float32[ndarray, "N U"], candidates: int) -> None:
        self.cosine_NU = cosine_NU
        images, texts = cosine_NU.shape
        self.least_N = np.array([_kth_best(row_U, candidates) for row_U in cosine_NU])
        self.least_U = np.empty(texts, dtype=cosine_NU.dtype)
        for start in range(0, texts, _COLUMNS_AT_ONCE):
            some_XN = np.ascontiguousarray(cosine_NU[:, start : start + _COLUMNS_AT_ONCE].T)
            self.least_U[start : start + len(some_XN)] = [_kth_best(row_N, candidates) for row_N in some_XN]
        found = [self._of(image) for image in range(images)]
        self.text_P = np.concatenate([text for text, _, _ in found])
        self.image_P = np.repeat(np.arange(images, dtype=np.int32), [len(text) for text, _, _ in found])
        self.of_image_P: Bool[ndarray, "P"] = np.concatenate([of_image for _, of_image, _ in found])
        self.of_text_P: Bool[ndarray, "P"] = np.concatenate([of_text for _, _, of_text in found])
        self.end_N: Int[ndarray, "N"] = np.cumsum([len(text) for text, _, _ in found])

    def _of(self, image: int) -> tuple[ndarray, ndarray, ndarray]:
        of_image_U = self.cosine_NU[image] >= self.least_N[image]
        of_text_U = self.cosine_NU[image] >= self.least_U
        text = np.flatnonzero(of_image_U | of_text_U).astype(np.int32)
        return text, of_image_U[text], of_text_U[text]

    def pairs(self, image: int) -> slice:
        """Slice of an image's pairs in the arrays over P."""
        return slice(int(self.end_N[image - 1]) if image else 0, int(self.end_N[image]))


def _kth_best(scores: ndarray, count: int) -> float:
    return float(np.partition(scores, len(scores) - count)[len(scores) - count]) if count < len(scores) else -np.inf


def _cosines(encoder: Encoder, data: Examples, texts: PackedTexts) -> Float32[ndarray, "N U"]:
    # the same features as in the second stage, so that the feature cache encodes an image once
    cosine_NU = np.empty((len(data), len(texts)), dtype=np.float32)
    for rows, images in image_batches(encoder, data.views):
        vectors = ImageFeatures(images.ids, present(images.global_ND, "image"))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = slice(start, start + _TEXTS_AT_ONCE)
            few = TextFeatures(texts.texts[part], present(texts.global_MD, "text")[part])
            cosine_NU[rows, part] = cosine.similarity(vectors, few).float().cpu().numpy()
    return cosine_NU


def _second_stage(encoder: Encoder, data: Examples, texts: PackedTexts, stage: _FirstStage) -> Float[ndarray, "P 2"]:
    """Image-to-text and text-to-image scores of all pairs by the model's own rule."""
    scores_P2 = np.empty((len(stage.text_P), 2))
    for rows, images in image_batches(encoder, data.views):
        if rows.start == 0:
            announce_duration(encoder, images[:1], texts, len(scores_P2))
        for image in range(rows.start, rows.stop):
            one = images[image - rows.start : image - rows.start + 1]
            for part_p in _pair_batches(texts, stage, image):
                both = encoder.similarity(one, texts.take(stage.text_P[part_p]))
                scores_P2[part_p] = np.stack([in_own_precision(way[0]) for way in both], axis=1)
    return scores_P2


def _pair_batches(texts: PackedTexts, stage: _FirstStage, image: int) -> Iterator[Int[ndarray, "p"]]:
    """Batches of indices of an image's pairs; texts of similar length share a batch, to save padding."""
    pair_P = np.arange(stage.end_N[image - 1] if image else 0, stage.end_N[image])
    pair_P = pair_P[np.argsort(texts.length_M.numpy(force=True)[stage.text_P[pair_P]], kind="stable")]
    for start in range(0, len(pair_P), _PAIRS_AT_ONCE):
        yield pair_P[start : start + _PAIRS_AT_ONCE]


def _images_as_queries(
    pairs: ImageCaptionPairs, stage: _FirstStage, score_P: Float[ndarray, "P"]
) -> tuple[FirstPositives, int]:
    """Place of each image's best own caption among all captions, and the number of images that had none to re-rank."""
    wording_U = np.bincount(pairs.distinct.index_M, minlength=len(pairs.distinct.texts))
    ends = np.searchsorted(pairs.image_M, np.arange(pairs.images + 1))
    places, left_out = [], 0
    for image in range(pairs.images):
        own = pairs.distinct.index_M[ends[image] : ends[image + 1]]
        part = stage.pairs(image)
        mine = stage.of_image_P[part]
        text, score = stage.text_P[part][mine], score_P[part][mine]
        chosen = np.searchsorted(text, own).clip(max=len(text) - 1)
        chosen = chosen[text[chosen] == own]
        if len(chosen):
            places.append(_place(score, wording_U[text], score[chosen]))
        else:
            left_out += len(own) > 0
            cosine_U = stage.cosine_NU[image]
            places.append(_place(cosine_U, wording_U, cosine_U[own]))
    return _first_positives(places), left_out


def _captions_as_queries(
    pairs: ImageCaptionPairs, stage: _FirstStage, score_P: Float[ndarray, "P"]
) -> tuple[FirstPositives, int]:
    """Place of each caption's image among all images, and the number of captions that had it not to re-rank."""
    chosen_P = np.flatnonzero(stage.of_text_P)
    chosen_P = chosen_P[np.argsort(stage.text_P[chosen_P], kind="stable")]
    image_P, score_P = stage.image_P[chosen_P], score_P[chosen_P]
    ends_U = np.searchsorted(stage.text_P[chosen_P], np.arange(len(pairs.distinct.texts) + 1))
    once_N = np.ones(pairs.images, dtype=np.int64)
    places, left_out = [], 0
    for own, column in zip(pairs.image_M, pairs.distinct.index_M, strict=True):
        part = slice(ends_U[column], ends_U[column + 1])
        place = np.searchsorted(image_P[part], own)
        if place < len(image_P[part]) and image_P[part][place] == own:
            places.append(_place(score_P[part], once_N[: len(score_P[part])], score_P[part][place : place + 1]))
        else:
            left_out += 1
            cosine_N = stage.cosine_NU[:, column]
            places.append(_place(cosine_N, once_N, cosine_N[own : own + 1]))
    return _first_positives(places), left_out


def _place(scores: ndarray, times: ndarray, positives: ndarray) -> tuple[int, int, int]:
    """Numbers of candidates above the best positive, tied with it, and of positives among the tied; `times` counts."""
    if not len(positives):
        return 0, 0, 0
    best = positives.max()
    return int(times[scores > best].sum()), int(times[scores == best].sum()), int((positives == best).sum())


def _first_positives(places: Sequence[tuple[int, int, int]]) -> FirstPositives:
    above_Q, tied_Q, positive_Q = np.array(places, dtype=np.int64).reshape(-1, 3).T
    return FirstPositives(above_Q, tied_Q, positive_Q)
