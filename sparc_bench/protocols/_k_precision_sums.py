"""K-Precision of the retrieved, a random and a constant caption, summed image by image for `faithfulness`.

Shapes: N images, U distinct candidate captions, K captions of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from sparc_bench.metrics.k_precision import KPrecision, References, best_caption, k_precision_score
from sparc_bench.metrics.statistic import Mean

ExactHits = Literal["apart", "excluded", "other_references"]
"""Rule for an image's own caption at the top of its ranking (see `faithfulness.Options.exact_hits`)."""


class KPrecisionSums:
    """Sums of one K-Precision (of all words, or of nouns and adjectives) over images.

    Attributes:
        sums: row ("all", "misses", "random_all", "random_misses") -> each image's expected score, N.
        counts: row -> each image's expected number of scored captions (those with words), N.
    """

    def __init__(
        self,
        words_U: Sequence[Sequence[str]],
        images: int,
        pool_U: Bool[ndarray, "U"],
        rule: References,
        exact_hits: ExactHits,
    ) -> None:
        self._words_U = words_U
        self._rule, self._exact_hits = rule, exact_hits
        self._precision = KPrecision(words_U, rule)
        self._has_words_U = self._precision.length_M > 0
        self._images = images
        self._pool_U = pool_U
        candidates = len(words_U)
        self.sums = {name: np.zeros(images) for name in ("all", "misses", "random_all", "random_misses")}
        self.counts = {name: np.zeros(images) for name in self.sums}
        self._half_sum_2U = np.zeros((2, candidates))
        self._half_miss_sum_2U = np.zeros((2, candidates))
        self._half_misses_2U = np.zeros((2, candidates))

    def add(
        self,
        rows: slice,
        references: Sequence[Sequence[Sequence[str]]],
        choice_NU: ndarray,
        own_NU: ndarray,
        places: Sequence[ndarray],
    ) -> None:
        """Add a batch of images.

        Args:
            rows: rows of the batch's images.
            references: words of each image's K captions.
            choice_NU: probability of each candidate to be the retrieved one; ties at the top share it.
            own_NU: whether a candidate is one of the image's own captions.
            places: index of each image's own captions among the candidates, K per image.
        """
        score_NU = np.nan_to_num(self._precision.scores(references), nan=0.0)
        if self._exact_hits == "other_references":
            self._compare_own_with_others(score_NU, references, places)
        even_NU = np.broadcast_to(self._pool_U / self._pool_U.sum(), choice_NU.shape)
        if self._exact_hits == "excluded":
            even_NU = even_NU * ~own_NU
            even_NU = even_NU / even_NU.sum(axis=1, keepdims=True)
        for name, weight_NU in (
            ("all", choice_NU),
            ("misses", choice_NU * ~own_NU),
            ("random_all", even_NU),
            ("random_misses", even_NU * ~own_NU),
        ):
            self.sums[name][rows] = (weight_NU * score_NU).sum(axis=1)
            self.counts[name][rows] = weight_NU @ self._has_words_U
        half_N = np.arange(rows.start, rows.stop) % 2
        for half in (0, 1):
            chosen_N = half_N == half
            self._half_sum_2U[half] += score_NU[chosen_N].sum(axis=0)
            self._half_miss_sum_2U[half] += (score_NU * ~own_NU)[chosen_N].sum(axis=0)
            self._half_misses_2U[half] += (~own_NU)[chosen_N].sum(axis=0)

    def _compare_own_with_others(
        self, score_NU: ndarray, references: Sequence[Sequence[Sequence[str]]], places: Sequence[ndarray]
    ) -> None:
        for score_U, captions, places_K in zip(score_NU, references, places, strict=True):
            for k, place in enumerate(places_K):
                others = [*captions[:k], *captions[k + 1 :]]
                score_U[place] = np.nan_to_num(k_precision_score(self._words_U[place], others, self._rule))

    def mean(self, name: str) -> Mean:
        """Mean score over images, for one row of `sums`."""
        return Mean(self.sums[name], self.counts[name])

    def constant(self, tuning: Sequence[Sequence[Sequence[str]]]) -> tuple[float, float]:
        """Mean scores, over all images and over misses, of the caption that is best on the `tuning` captions.

        Without tuning captions: the best caption on one half of the images, scored on the other half, both ways.
        """
        if tuning:
            candidates = [words if inside else () for words, inside in zip(self._words_U, self._pool_U, strict=True)]
            best = [best_caption(candidates, tuning, self._rule)] * 2
        else:
            best = [int(np.where(self._pool_U, self._half_sum_2U[half], -1).argmax()) for half in (1, 0)]
        total = sum(self._half_sum_2U[half, best[half]] for half in (0, 1))
        missed = sum(self._half_miss_sum_2U[half, best[half]] for half in (0, 1))
        misses = sum(self._half_misses_2U[half, best[half]] for half in (0, 1))
        return float(total / self._images), float(missed / misses) if misses else float("nan")
