"""Retrieval metrics (R@k, mAP@R) from ranks, and the reference rows that follow from the image-caption pairs alone.

`retrieval` and `retrieval_rerank` share this module. The reference rows need no N x M matrix.
Shapes: N images, M captions, U distinct captions, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sparc_bench.dataset import Examples
from sparc_bench.metrics.ranking import FirstPositives, expected_rank, hit_score
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.protocols._similarity_scores import DistinctTexts


@dataclass(frozen=True)
class RankingScores:
    """Scores of the queries of one direction: k -> hit credit, expected rank of the first positive, AP@R or None."""

    hits: dict[int, Float[ndarray, "Q"]]
    rank_Q: Float[ndarray, "Q"]
    map_r_Q: Float[ndarray, "Q"] | None = None

    @classmethod
    def of(cls, first: FirstPositives, ks: Sequence[int]) -> RankingScores:
        """Hit credits and expected ranks from the positions of each query's best positives."""
        return cls({k: hit_score(first, k) for k in ks}, expected_rank(first))

    @property
    def tied_queries(self) -> int:
        """Number of queries whose hit credit at some k is neither 0 nor 1, because of a tie."""
        return int(np.any([(hit_Q > 0) & (hit_Q < 1) for hit_Q in self.hits.values()], axis=0).sum())


@dataclass(frozen=True)
class ImageCaptionPairs:
    """Image-caption pairs of a split: a caption is true of its own image only.

    Attributes:
        images: number of images, N.
        image_M: index of each caption's image.
        distinct: the U distinct captions and the index of each of the M captions among them.
    """

    images: int
    image_M: Int[ndarray, "M"]
    distinct: DistinctTexts

    @classmethod
    def of(cls, data: Examples) -> ImageCaptionPairs:
        """Pairs of all captions of a split with their images."""
        return cls(len(data), data.caption_image_M, DistinctTexts.of(data.captions))

    @property
    def captions_N(self) -> Int[ndarray, "N"]:
        """Number of captions of each image."""
        return np.bincount(self.image_M, minlength=self.images)

    def ceiling(self, ks: Sequence[int]) -> dict[str, float]:
        """Metrics of a ranker that knows every pair but cannot tell equal captions of different images apart."""
        wording_U = np.bincount(self.distinct.index_M, minlength=len(self.distinct.texts))
        image_P, wording_P = np.unique(np.stack([self.image_M, self.distinct.index_M]), axis=1)
        to_text = FirstPositives(
            above_Q=np.zeros(self.images, dtype=np.int64),
            tied_Q=np.bincount(image_P, wording_U[wording_P], minlength=self.images).astype(np.int64),
            positive_Q=self.captions_N,
        )
        owners_U = np.bincount(wording_P, minlength=len(wording_U))
        return self._values(to_text, self._one_positive(owners_U[self.distinct.index_M]), ks)

    def chance(self, ks: Sequence[int]) -> dict[str, float]:
        """Metrics of equal scores for all pairs."""
        captions_N = self.captions_N
        to_text = FirstPositives(
            above_Q=np.zeros(self.images, dtype=np.int64),
            tied_Q=np.where(captions_N > 0, len(self.image_M), 0),
            positive_Q=captions_N,
        )
        return self._values(to_text, self._one_positive(np.full(len(self.image_M), self.images)), ks)

    def constant(self) -> dict[str, float]:
        """R@1 of the best constant answer: one caption for all images, one image for all captions."""
        return {
            "image_to_text_r1": 1 / self.images,
            "text_to_image_r1": float((self.captions_N / len(self.image_M)).max()),
        }

    def reference(self, ks: Sequence[int]) -> dict[str, dict[str, float]]:
        """Reference rows `ceiling`, `chance` and `constant`."""
        return {"ceiling": self.ceiling(ks), "chance": self.chance(ks), "constant": self.constant()}

    def counts(self) -> dict[str, int]:
        """Counts for the record."""
        captions_N = self.captions_N
        return {
            "images": self.images,
            "captions": len(self.image_M),
            "distinct_captions": len(self.distinct.texts),
            "captions_per_image_min": int(captions_N.min()),
            "captions_per_image_max": int(captions_N.max()),
            "true_pairs": len(self.image_M),
        }

    def _one_positive(self, tied_M: Int[ndarray, "M"]) -> FirstPositives:
        return FirstPositives(np.zeros_like(tied_M), tied_M, np.ones_like(tied_M))

    def _values(self, to_text: FirstPositives, to_image: FirstPositives, ks: Sequence[int]) -> dict[str, float]:
        one_cluster_M = np.zeros(len(self.image_M), dtype=np.int64)
        found = retrieval_metrics(RankingScores.of(to_text, ks), RankingScores.of(to_image, ks), one_cluster_M, 1)
        return {name: statistic.value for name, statistic in found.items()}


def retrieval_metrics(
    to_text: RankingScores, to_image: RankingScores, image_M: ndarray, images: int
) -> dict[str, Statistic]:
    """R@k in both directions, and mAP@R where AP@R is there; means over captions are clustered by image."""
    found: dict[str, Statistic] = {}
    for k, hit_N in to_text.hits.items():
        found[f"image_to_text_r{k}"] = Mean.of(hit_N)
    for k, hit_M in to_image.hits.items():
        found[f"text_to_image_r{k}"] = Mean.of(hit_M, image_M, images)
    if to_text.map_r_Q is not None and to_image.map_r_Q is not None:
        found["image_to_text_map_r"] = Mean.of(to_text.map_r_Q)
        found["text_to_image_map_r"] = Mean.of(to_image.map_r_Q, image_M, images)
    return found


def hits_by_caption_kind(
    data: Examples, to_image: RankingScores, image_M: ndarray
) -> Mapping[str, Mapping[str, Statistic]]:
    """Text-to-image hit rate at the smallest k for each kind of caption; {} for a data set without caption kinds."""
    kind_M = np.array([tag for example in data.examples for tag in example.caption_tags])
    if len(kind_M) != len(image_M):
        return {}
    hit_M = to_image.hits[min(to_image.hits)]
    kinds = {
        str(kind): Mean.of(hit_M[kind_M == kind], image_M[kind_M == kind], len(data)) for kind in np.unique(kind_M)
    }
    return {"caption kind": kinds}


def rank_arrays(
    to_text: RankingScores, to_image: RankingScores, ks: Sequence[int]
) -> tuple[dict[str, ndarray], dict[str, ndarray]]:
    """Arrays for the file of outcomes: (one row per image, one row per caption)."""
    return (
        {"correct": to_text.hits[min(ks)], "rank_image_to_text": to_text.rank_Q.astype(np.float32)},
        {"rank_text_to_image": to_image.rank_Q.astype(np.float32)},
    )
