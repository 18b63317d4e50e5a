"""K-Precision: the share of a caption's words that the reference captions of its image contain.

Adlakha et al. 2023 define it for generated answers; Bica et al. 2024 (SPARC, section 4.4) apply it to the top-1
retrieved caption of an image, over all words (K-P) and over nouns and adjectives alone (K-P_na).

Shapes: N reference sets (one per image), M captions, V words of the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_matrix

References = Literal["union", "multiset", "max"]
"""Rule for several reference captions of an image.

union: a word counts if any reference contains it, every time it occurs.
multiset: the references form one bag of words, and a word counts at most as often as the bag contains it (the rule of
the metric's original implementation, McGill-NLP/instruct-qa, which joins all evidence before it counts).
max: each reference is a bag of its own, and the best one counts.
"""

_SHORTLIST = 2000
_CAPTIONS_AT_ONCE = 256
_SETS_AT_ONCE = 256
_ROUNDING = 1e-9


def k_precision_score(words: Sequence[str], references: Sequence[Sequence[str]], rule: References) -> float:
    """Share of a caption's `words` that the references contain; NaN for a caption without words.

    The denominator is the number of words of the caption, repetitions included. Without any reference the score is 0.

    >>> k_precision_score(["red", "dog", "runs"], [["dog", "runs"], ["brown", "dog"]], "union")
    0.6666666666666666
    """
    if not words:
        return float("nan")
    if rule == "union":
        known = {word for reference in references for word in reference}
        return sum(word in known for word in words) / len(words)
    bags = [Counter(reference) for reference in references]
    if rule == "multiset":
        bags = [sum(bags, Counter())]
    return max(((Counter(words) & bag).total() / len(words) for bag in bags), default=0.0)


def best_caption(
    captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], rule: References
) -> int:
    """Index of the caption with the highest mean score over all reference sets; the first on ties.

    A caption without words scores 0. Under "max" a caption scores at most its "union" score, which is cheap: captions
    are scored in the order of their "union" scores until no remaining one can win, and at most 2,000 of them.
    """
    totals_M = KPrecision(captions, "union" if rule == "max" else rule).totals(references)
    if rule != "max":
        return int(totals_M.argmax())
    order_M = np.argsort(-totals_M, kind="stable")[:_SHORTLIST]
    best, winner = -1.0, 0
    for start in range(0, len(order_M), _CAPTIONS_AT_ONCE):
        some_M = order_M[start : start + _CAPTIONS_AT_ONCE]
        if totals_M[some_M[0]] < best - _ROUNDING:
            break
        precision = KPrecision([captions[index] for index in some_M], rule)
        found_M = np.zeros(len(some_M))
        for first in range(0, len(references), _SETS_AT_ONCE):
            found_M += np.nan_to_num(precision.scores(references[first : first + _SETS_AT_ONCE])).sum(axis=0)
        for total, index in zip(found_M.tolist(), some_M.tolist(), strict=True):
            if total > best + _ROUNDING or (total > best - _ROUNDING and index < winner):
                best, winner = max(best, total), index
    return winner


class KPrecision:
    """K-Precision (`k_precision_score`) of M captions against many reference sets, by sparse products of word counts.

    min(a, b) of two counts is the number of levels t >= 1 that both reach, so a multiset intersection is a sum over t
    of products of 0/1 matrices; captions rarely repeat a word, so two or three levels suffice.
    """

    def __init__(self, captions: Sequence[Sequence[str]], rule: References) -> None:
        self._rule = rule
        self._vocabulary: dict[str, int] = {}
        for words in captions:
            for word in words:
                self._vocabulary.setdefault(word, len(self._vocabulary))
        counts_MV = self._counts(captions)
        self.length_M = np.array([len(words) for words in captions], dtype=np.int64)
        if rule == "union":
            self._levels_VM = [counts_MV.T.tocsr()]
        else:
            levels = range(1, int(counts_MV.max()) + 1 if counts_MV.nnz else 1)
            self._levels_VM = [_reached(counts_MV, level).T.tocsr() for level in levels]

    def scores(self, references: Sequence[Sequence[Sequence[str]]]) -> Float[ndarray, "N M"]:
        """Score of every caption (columns) against every reference set (rows); NaN for captions without words."""
        if self._rule == "max":
            common_NM = np.zeros((len(references), len(self.length_M)))
            filled = [row for row, reference_set in enumerate(references) if len(reference_set)]
            if filled:
                starts = np.cumsum([0, *(len(references[row]) for row in filled[:-1])])
                common = self._common([reference for row in filled for reference in references[row]])
                common_NM[filled] = np.maximum.reduceat(common, starts, axis=0)
        else:
            pooled = [[word for reference in reference_set for word in reference] for reference_set in references]
            common_NM = self._common(pooled)
        length_1M = self.length_M[None, :]
        scores_NM = np.full(common_NM.shape, np.nan)
        np.divide(common_NM, length_1M, out=scores_NM, where=length_1M > 0)
        return scores_NM

    def totals(self, references: Sequence[Sequence[Sequence[str]]]) -> Float[ndarray, "M"]:
        """Sum of each caption's scores over all reference sets, for "union" and "multiset"; 0 without words."""
        assert self._rule != "max"
        counts_NV = self._counts([[word for reference in each for word in reference] for each in references])
        common_M = np.zeros(len(self.length_M))
        for level, captions_VM in enumerate(self._levels_VM, start=1):
            common_M += np.asarray(_reached(counts_NV, level).sum(axis=0) @ captions_VM).ravel()
        totals_M: Float[ndarray, "M"] = common_M / np.maximum(self.length_M, 1)
        return totals_M

    def _common(self, bags: Sequence[Sequence[str]]) -> Float[ndarray, "N M"]:
        counts_NV = self._counts(bags)
        common_NM = np.zeros((len(bags), len(self.length_M)))
        for level, captions_VM in enumerate(self._levels_VM, start=1):
            common_NM += (_reached(counts_NV, level) @ captions_VM).toarray()
        return common_NM

    def _counts(self, bags: Sequence[Sequence[str]]) -> csr_matrix:
        known: list[Mapping[int, int]] = [
            Counter(self._vocabulary[word] for word in bag if word in self._vocabulary) for bag in bags
        ]
        values = np.array([count for bag in known for count in bag.values()], dtype=np.float64)
        columns = np.array([word for bag in known for word in bag], dtype=np.int64)
        starts = np.cumsum([0, *(len(bag) for bag in known)])
        return csr_matrix((values, columns, starts), shape=(len(bags), max(len(self._vocabulary), 1)))


def _reached(counts: csr_matrix, level: int) -> csr_matrix:
    reached: csr_matrix = (counts >= level).astype(np.float64)
    return reached
