"""How well scores tell questions with the answer yes from those with the answer no: AUROC and mean AP by object.

Both know scores by their order alone, so what is kept of a score is its level: how many smaller scores there are. Equal
scores have one level and are treated as one: half a win each in AUROC, one point of the curve in AP.

Shapes: G images, Q questions (image by image), S resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic

AnyPresence = TypeVar("AnyPresence", bound="Presence")


@dataclass(frozen=True)
class Presence:
    """Questions, image by image, and what a score made of them.

    Attributes:
        asked_G: questions about each image; the arrays over Q follow the images.
        level_Q: of the score: equal scores share it, higher ones have a higher one.
        object_Q: the object that is asked about.
        yes_Q: whether it is there.
    """

    asked_G: Int[ndarray, "G"]
    level_Q: Int[ndarray, "Q"]
    object_Q: Int[ndarray, "Q"]
    yes_Q: Bool[ndarray, "Q"]

    @classmethod
    def of(
        cls: type[AnyPresence],
        score_Q: Float[ndarray, "Q"],
        image_Q: Int[ndarray, "Q"],
        object_Q: Int[ndarray, "Q"],
        yes_Q: Bool[ndarray, "Q"],
        images: int,
    ) -> AnyPresence:
        """From scores of questions in the order of their images; images may have none."""
        levels_Q = np.unique(score_Q, return_inverse=True)[1]
        return cls(np.bincount(image_Q, minlength=images), levels_Q, object_Q, yes_Q)

    @property
    def image_Q(self) -> Int[ndarray, "Q"]:
        """The image of each question."""
        return np.repeat(np.arange(len(self.asked_G)), self.asked_G)

    @property
    def objects_GC(self) -> Bool[ndarray, "G 2"]:
        """Images with a question of either answer: the fewer bound what a score without variance can claim."""
        image_Q, images = self.image_Q, len(self.asked_G)
        counts = [np.bincount(image_Q[self.yes_Q == answer], minlength=images) for answer in (True, False)]
        return np.stack(counts, axis=1) > 0

    def _by_level(self, chosen_Q: ndarray, weights_SG: ndarray) -> tuple[ndarray, ndarray]:
        """Weight of yes and of no questions at each level (S, levels), best score first."""
        order_Q = np.flatnonzero(chosen_Q)
        order_Q = order_Q[np.argsort(-self.level_Q[order_Q].astype(np.int64), kind="stable")]
        starts = np.flatnonzero(np.diff(self.level_Q[order_Q].astype(np.int64), prepend=-1))
        weights_SQ = np.asarray(weights_SG, dtype=np.float64)[:, self.image_Q[order_Q]]
        yes_Q = self.yes_Q[order_Q]
        yes = np.add.reduceat(weights_SQ * yes_Q, starts, axis=1)
        no = np.add.reduceat(weights_SQ * ~yes_Q, starts, axis=1)
        return yes, no


@dataclass(frozen=True)
class Auroc(Presence, Statistic):
    """Share of the pairs of a yes and a no question that the scores put right, equal scores counted half.

    All pairs count, of whatever images and objects. NaN where either answer is missing. Equal scores all over give
    exactly .5.
    """

    kind: ClassVar[str] = "auroc"

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """AUROC under the weights."""
        if not len(self.level_Q):
            return np.full(len(weights_SG), np.nan)
        yes, no = self._by_level(np.ones(len(self.level_Q), dtype=bool), weights_SG)
        below = no.sum(axis=1, keepdims=True) - np.cumsum(no, axis=1)
        won_S = (yes * (below + no / 2)).sum(axis=1)
        pairs_S = yes.sum(axis=1) * no.sum(axis=1)
        values_S: ndarray = np.divide(won_S, pairs_S, out=np.full(len(won_S), np.nan), where=pairs_S > 0)
        return values_S


@dataclass(frozen=True)
class ObjectAP(Presence, Statistic):
    """Mean over objects of the average precision of finding, among the images asked about it, those that show it.

    AP is the sum of the precision at each level times the recall that it adds, without interpolation, equal scores as
    one step: scikit-learn's `average_precision_score`. Objects with questions of one answer alone are left out; NaN
    where that leaves none.
    """

    kind: ClassVar[str] = "object_ap"

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Mean AP under the weights."""
        total_S, objects_S = np.zeros(len(weights_SG)), np.zeros(len(weights_SG))
        for name in np.unique(self.object_Q):
            chosen_Q = self.object_Q == name
            if self.yes_Q[chosen_Q].all() or not self.yes_Q[chosen_Q].any():
                continue
            yes, no = self._by_level(chosen_Q, weights_SG)
            yes_S = yes.sum(axis=1)
            both_S = (yes_S > 0) & (no.sum(axis=1) > 0)
            found, seen = np.cumsum(yes, axis=1), np.cumsum(yes + no, axis=1)
            precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
            gained_S = (precision * yes).sum(axis=1)
            total_S += np.divide(gained_S, yes_S, out=np.zeros_like(gained_S), where=both_S)
            objects_S += both_S
        values_S: ndarray = np.divide(total_S, objects_S, out=np.full(len(total_S), np.nan), where=objects_S > 0)
        return values_S


def tied_questions(level_Q: Int[ndarray, "Q"], yes_Q: Bool[ndarray, "Q"]) -> int:
    """How many questions have the score of one with the other answer.

    >>> tied_questions(np.array([0, 1, 1, 1, 2]), np.array([True, True, False, False, True]))
    3
    """
    shared = np.intersect1d(level_Q[yes_Q], level_Q[~yes_Q])
    return int(np.isin(level_Q, shared).sum())


def best_f1_threshold(score_Q: Float[ndarray, "Q"], yes_Q: Bool[ndarray, "Q"]) -> float:
    """The threshold at which "yes where the score is at least this" has the highest F1; the highest of several.

    It lies half-way to the next lower score; minus infinity where all are to be answered with yes, or none is there.

    >>> best_f1_threshold(np.array([0.9, 0.5, 0.7, 0.1]), np.array([True, False, True, False]))
    0.6
    """
    if not yes_Q.any():
        return -np.inf
    scores = np.unique(score_Q)[::-1]
    place_Q = len(scores) - 1 - np.unique(score_Q, return_inverse=True)[1]
    found = np.cumsum(np.bincount(place_Q[yes_Q], minlength=len(scores)))
    said = np.cumsum(np.bincount(place_Q, minlength=len(scores)))
    best = int(np.argmax(2 * found / (said + yes_Q.sum())))
    return float((scores[best] + scores[best + 1]) / 2) if best + 1 < len(scores) else -np.inf
