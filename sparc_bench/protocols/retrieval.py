"""Image-text retrieval in both directions, with several captions per image.

Shapes: N images, M captions, U distinct captions, Q queries, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, image_need, pairwise
from sparc_bench.errors import UserError
from sparc_bench.metrics.ranking import (
    FirstPositives,
    expected_rank,
    first_positives,
    first_positives_of_columns,
    first_positives_of_rows,
    hit_score,
    map_at_r_score,
)
from sparc_bench.metrics.statistic import Mean
from sparc_bench.outputs.scores_encoder import similarity_encoder
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._retrieval_metrics import (
    ImageCaptionPairs,
    RankingScores,
    hits_by_caption_kind,
    rank_arrays,
    retrieval_metrics,
)
from sparc_bench.protocols._similarity_scores import DistinctTexts, ScoredTexts, bounded, similarity_batches

VERSION = 1
TITLE = "image-text retrieval both ways: hit rate R@k, and mAP@R under full truth"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions"})
_QUERIES_AT_ONCE = 64


class Options(Strict):
    """Options of the protocol in a task card."""

    ks: tuple[Number, ...]
    """k of the hit rates R@k"""
    truth: Literal["own", "full"]
    """own: a caption is true of its own image only; full: of every image that it describes, by the data set's truth"""
    ties: Literal["expected"]
    """expected: the mean credit over random orders of the tied candidates"""


def kept(encoder: Encoder) -> frozenset[str] | None:
    """Vectors of all images, which are ranked together; None for a pairwise model, whose scores take longer."""
    return None if pairwise(encoder) else image_need(encoder)


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:  # noqa: ARG001 - the seam
    """Scores (N, U) of images with all distinct captions by a pairwise model: `to_text`, `to_image` if another."""
    texts = DistinctTexts.of(work.data.captions).texts
    scored = ScoredTexts(encoder, texts, sum(map(len, work.parts)))
    for part, images in work.images(encoder, image_need(encoder)):
        found = [scored.scores(some) for some in bounded(encoder, images)]
        one_matrix = all(to_text is to_image for to_text, to_image in found)
        ways = {"to_text": 0} if one_matrix else {"to_text": 0, "to_image": 1}
        yield part.block(**{name: np.concatenate([scores[way] for scores in found]) for name, way in ways.items()})


def score(predictions: Predictions | Encoder, data: Examples, options: Options) -> Outcome:
    """Rank all captions for every image and all images for every caption.

    R@k is a hit rate: the share of queries with at least one positive among the best k. Means over captions are
    clustered by image. Under full truth there are also mAP@R and R@1 of the annotators' own pairs (`..._own_r1`).
    Reference rows: `ceiling` (a ranker that knows the truth; with `truth` "own" it cannot tell equal captions apart),
    `chance` (all scores equal) and `constant` (R@1 of the best constant answer). The tie count is the number of queries
    whose credit at some k is neither 0 nor 1.
    """
    pairs = ImageCaptionPairs.of(data)
    if options.truth == "full":
        return _against_full_truth(predictions, data, options, pairs)
    to_text, to_image = (
        RankingScores.of(first, options.ks) for first in _own_first_positives(predictions, data, pairs)
    )
    examples, rows = rank_arrays(to_text, to_image, options.ks)
    return Outcome(
        metrics=retrieval_metrics(to_text, to_image, pairs.image_M, len(data)),
        groups=hits_by_caption_kind(data, to_image, pairs.image_M),
        examples=examples,
        rows=rows,
        ties=to_text.tied_queries + to_image.tied_queries,
        counts=pairs.counts(),
        reference_rows=pairs.reference(options.ks),
    )


OUTPUTS = {"similarity": similarity_encoder}


def hit_rates(encoder: Encoder, data: Examples, ks: Sequence[int]) -> dict[str, float]:
    """R@k in both directions, under full truth where the data set knows it: the validation of a training run.

    The values equal those of `score`; the duration of a pairwise model is not announced.
    """
    pairs = ImageCaptionPairs.of(data)
    if data.caption_truth is None:
        firsts = _own_first_positives(encoder, data, pairs, quiet=True)
        to_text, to_image = (RankingScores.of(first, ks) for first in firsts)
    else:
        scores = _scores(encoder, data, pairs.distinct, quiet=True)
        to_text, to_image = _both_ways(*scores, full_truth(data), ks, pairs.distinct.index_M, with_map=False)
    found = retrieval_metrics(to_text, to_image, pairs.image_M, len(data))
    return {name: statistic.value for name, statistic in found.items()}


def _score_batches(
    predictions: Predictions | Encoder, data: Examples, distinct: DistinctTexts, *, quiet: bool
) -> Iterator[tuple[slice, Float[ndarray, "N U"], Float[ndarray, "N U"]]]:
    """Batches (rows, image-to-text scores, text-to-image scores) of images with all distinct captions."""
    if not isinstance(predictions, Predictions):
        yield from similarity_batches(predictions, data.views, distinct.texts, quiet=quiet)
        return
    for block in predictions:
        rows = slice(int(block.index_N[0]), int(block.index_N[-1]) + 1)
        yield rows, block.arrays["to_text"], block.arrays.get("to_image", block.arrays["to_text"])


def _own_first_positives(
    predictions: Predictions | Encoder, data: Examples, pairs: ImageCaptionPairs, *, quiet: bool = False
) -> tuple[FirstPositives, FirstPositives]:
    """Positions of the best positives in both directions; only the text-to-image matrix is kept in memory."""
    distinct = pairs.distinct
    shape = (pairs.images, len(distinct.texts))
    text_to_image_NU: Float[ndarray, "N U"] | None = None
    repeated_E, parts = distinct.repeated_E, []
    for rows, to_text, to_image in _score_batches(predictions, data, distinct, quiet=quiet):
        if text_to_image_NU is None:
            text_to_image_NU = np.empty(shape, dtype=to_image.dtype)
        text_to_image_NU[rows] = to_image
        first, stop = np.searchsorted(pairs.image_M, (rows.start, rows.stop))
        query_P, column_P = pairs.image_M[first:stop] - rows.start, distinct.index_M[first:stop]
        parts.append(first_positives_of_rows(to_text, query_P, column_P, repeated_E))
    assert text_to_image_NU is not None
    to_text_first = FirstPositives(
        above_Q=np.concatenate([part.above_Q for part in parts]),
        tied_Q=np.concatenate([part.tied_Q for part in parts]),
        positive_Q=np.concatenate([part.positive_Q for part in parts]),
    )
    return to_text_first, first_positives_of_columns(text_to_image_NU, distinct.index_M, pairs.image_M)


def _against_full_truth(
    predictions: Predictions | Encoder, data: Examples, options: Options, pairs: ImageCaptionPairs
) -> Outcome:
    distinct, image_M = pairs.distinct, pairs.image_M
    column_M = distinct.index_M
    image_to_text_NU, text_to_image_NU = _scores(predictions, data, distinct)
    own_NM, truth_NM = data.own_truth(), full_truth(data)
    both = (image_to_text_NU, text_to_image_NU)
    to_text, to_image = _both_ways(*both, truth_NM, options.ks, column_M, with_map=True)
    own_text, own_image = _both_ways(*both, own_NM, (1,), column_M, with_map=False)
    flat_NM = np.broadcast_to(np.float32(0), truth_NM.shape)
    reference = {
        "ceiling": _reference(truth_NM, truth_NM, options.ks, with_map=True),
        "chance": _reference(flat_NM, truth_NM, options.ks, with_map=True),
        "constant": constant_reference(truth_NM),
    }
    for row, scores in (("ceiling", truth_NM), ("chance", flat_NM)):
        own = _reference(scores, own_NM, (1,), with_map=False)
        reference[row] |= {name.replace("_r1", "_own_r1"): value for name, value in own.items()}
    owned_NM = same_string_truth(own_NM, distinct)
    reference["ceiling"]["image_to_text_own_r1"] = own_caption_ceiling(truth_NM, owned_NM)
    share = float(truth_NM.mean())
    examples, rows = rank_arrays(to_text, to_image, options.ks)
    return Outcome(
        metrics={
            **retrieval_metrics(to_text, to_image, image_M, len(data)),
            "image_to_text_own_r1": Mean.of(own_text.hits[1]),
            "text_to_image_own_r1": Mean.of(own_image.hits[1], image_M, len(data)),
        },
        groups=hits_by_caption_kind(data, to_image, image_M),
        examples=examples,
        rows=rows,
        ties=to_text.tied_queries + to_image.tied_queries,
        counts={**pairs.counts(), "true_pairs": int(truth_NM.sum())},
        reference_rows=reference,
        notes=(f"A caption is true of {share:.2%} of the images on average; own_r1 counts its own image alone.",),
    )


def _both_ways(
    image_to_text_NU: Float[ndarray, "N U"],
    text_to_image_NU: Float[ndarray, "N U"],
    truth_NM: Bool[ndarray, "N M"],
    ks: Sequence[int],
    column_M: Int[ndarray, "M"],
    *,
    with_map: bool,
) -> tuple[RankingScores, RankingScores]:
    """Captions ranked for every image, and images for every caption; `column_M` is each caption's column."""
    return (
        ranking_scores(image_to_text_NU, truth_NM, ks, with_map, column_C=column_M),
        ranking_scores(text_to_image_NU.T, truth_NM.T, ks, with_map, row_Q=column_M),
    )


def ranking_scores(
    scores: Shaped[ndarray, "queries candidates"],
    truth_QC: Bool[ndarray, "Q C"],
    ks: Sequence[int],
    with_map: bool,
    row_Q: Int[ndarray, "Q"] | None = None,
    column_C: Int[ndarray, "C"] | None = None,
) -> RankingScores:
    """Hit credits, expected ranks and AP@R of every query, in batches of queries.

    `row_Q` and `column_C` are the row and column of `scores` of each query and candidate (default: the same index).
    """
    parts: list[RankingScores] = []
    for start in range(0, len(truth_QC), _QUERIES_AT_ONCE):
        rows = slice(start, start + _QUERIES_AT_ONCE)
        chunk_QC = scores[rows] if row_Q is None else scores[row_Q[rows]]
        chunk_QC = np.ascontiguousarray(chunk_QC if column_C is None else chunk_QC[:, column_C])
        chunk_QC = chunk_QC if chunk_QC.dtype.kind == "f" else chunk_QC.astype(np.float32)
        first = first_positives(chunk_QC, truth_QC[rows])
        hits = {k: hit_score(first, k) for k in ks}
        parts.append(
            RankingScores(hits, expected_rank(first), map_at_r_score(chunk_QC, truth_QC[rows]) if with_map else None)
        )
    return RankingScores(
        hits={k: np.concatenate([part.hits[k] for part in parts]) for k in ks},
        rank_Q=np.concatenate([part.rank_Q for part in parts]),
        map_r_Q=np.concatenate([part.map_r_Q for part in parts if part.map_r_Q is not None]) if with_map else None,
    )


def full_truth(data: Examples) -> Bool[ndarray, "N M"]:
    """Matrix of which caption is true of which image; raises UserError for a data set without full truth."""
    if data.caption_truth is None:
        raise UserError(f"{data.dataset} does not know which captions hold of other images: set truth = 'own'.")
    truth_NM = np.asarray(data.caption_truth(data.examples), dtype=bool)
    if not truth_NM[data.own_truth()].all():
        raise RuntimeError(f"{data.dataset} has a caption that is not true of its own image")
    return truth_NM


def same_string_truth(own_NM: Bool[ndarray, "N M"], distinct: DistinctTexts) -> Bool[ndarray, "N M"]:
    """Own truth extended to captions with equal strings, which no ranker of strings can tell apart."""
    own_NU = np.zeros((len(own_NM), len(distinct.texts)), dtype=bool)
    image_of, caption_of = np.nonzero(own_NM)
    own_NU[image_of, distinct.index_M[caption_of]] = True
    return own_NU[:, distinct.index_M]


def own_caption_ceiling(truth_NM: Bool[ndarray, "N M"], owned_NM: Bool[ndarray, "N M"]) -> float:
    """Highest expected image-to-text R@1 on own captions for a ranker that knows the full truth alone.

    A caption true of k images, m of which have it as their own, is a given image's own with probability m / k; the best
    guess is the true caption with the highest one. `owned_NM` marks captions whose string is an image's own.

    >>> own_caption_ceiling(np.array([[True, True], [True, False]]), np.array([[False, True], [True, False]]))
    0.75
    """
    chance_M = owned_NM.sum(axis=0) / truth_NM.sum(axis=0)
    return float(np.where(truth_NM, chance_M, 0.0).max(axis=1).mean())


def constant_reference(truth_NM: Bool[ndarray, "N M"]) -> dict[str, float]:
    """R@1 of the best constant answer: one caption for all images, one image for all captions."""
    return {
        "image_to_text_r1": float(truth_NM.mean(axis=0).max()),
        "text_to_image_r1": float(truth_NM.mean(axis=1).max()),
    }


def _scores(
    predictions: Predictions | Encoder, data: Examples, distinct: DistinctTexts, *, quiet: bool = False
) -> tuple[ndarray, ndarray]:
    shape = (len(data), len(distinct.texts))
    image_to_text_NU = text_to_image_NU = np.empty((0, 0), dtype=np.float32)
    for rows, to_text, to_image in _score_batches(predictions, data, distinct, quiet=quiet):
        if rows.start == 0:
            image_to_text_NU = text_to_image_NU = np.empty(shape, dtype=to_text.dtype)
        if to_image is not to_text and text_to_image_NU is image_to_text_NU:
            text_to_image_NU = np.empty(shape, dtype=to_image.dtype)
        image_to_text_NU[rows] = to_text
        if text_to_image_NU is not image_to_text_NU:
            text_to_image_NU[rows] = to_image
    return image_to_text_NU, text_to_image_NU


def _reference(scores_NM: ndarray, truth_NM: ndarray, ks: Sequence[int], with_map: bool) -> dict[str, float]:
    to_text = ranking_scores(scores_NM, truth_NM, ks, with_map)
    to_image = ranking_scores(scores_NM.T, truth_NM.T, ks, with_map)
    queries = np.zeros(truth_NM.shape[1], dtype=np.int64)
    return {name: statistic.value for name, statistic in retrieval_metrics(to_text, to_image, queries, 1).items()}
