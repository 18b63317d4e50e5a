"""AUROC and mean AP over objects of scores for yes/no questions about objects in images.

Both depend on the order of the scores alone, so only the level of a score is kept, its rank among the distinct scores.
Equal scores have one level: they count half in AUROC and are one point of the curve in AP.

Shapes: G images, Q questions (image by image), S sets of weights, C objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic

AnyQuestions = TypeVar("AnyQuestions", bound="ScoredQuestions")


@dataclass(frozen=True)
class ScoredQuestions:
    """Yes/no questions with their scores, image by image.

    Attributes:
        asked_G: number of questions about each image; the arrays over Q are in the order of the images.
        level_Q: rank of each question's score among the distinct scores, ascending.
        object_Q: object of each question.
        yes_Q: whether the object is in the image.
    """

    asked_G: Int[ndarray, "G"]
    level_Q: Int[ndarray, "Q"]
    object_Q: Int[ndarray, "Q"]
    yes_Q: Bool[ndarray, "Q"]

    @classmethod
    def of(
        cls: type[AnyQuestions],
        score_Q: Float[ndarray, "Q"],
        image_Q: Int[ndarray, "Q"],
        object_Q: Int[ndarray, "Q"],
        yes_Q: Bool[ndarray, "Q"],
        images: int,
    ) -> AnyQuestions:
        """Questions from their scores, in the order of their images; an image may have none."""
        levels_Q = np.unique(score_Q, return_inverse=True)[1]
        return cls(np.bincount(image_Q, minlength=images), levels_Q, object_Q, yes_Q)

    @property
    def image_Q(self) -> Int[ndarray, "Q"]:
        """Image of each question."""
        return np.repeat(np.arange(len(self.asked_G)), self.asked_G)

    @property
    def objects_GC(self) -> Bool[ndarray, "G 2"]:
        """Mask of images with a yes and a no question; the rarer answer limits the interval of a score of 0 or 1."""
        image_Q, images = self.image_Q, len(self.asked_G)
        counts = [np.bincount(image_Q[self.yes_Q == answer], minlength=images) for answer in (True, False)]
        return np.stack(counts, axis=1) > 0

    @property
    def most_n(self) -> int:
        """Largest n of the interval: near 0 and 1 no order of the questions is surer than a share of them."""
        return len(self.level_Q)

    @property
    def freedom(self) -> float | int:
        """Degrees of freedom of the variance: images with the rarer answer."""
        return max(1, int(self.objects_GC.sum(axis=0).min()))

    def _by_level(self, chosen_Q: ndarray, weights_SG: ndarray) -> tuple[ndarray, ndarray]:
        """Weights of yes and of no questions at each level, each (S, levels), best score first."""
        order_Q = np.flatnonzero(chosen_Q)
        order_Q = order_Q[np.argsort(-self.level_Q[order_Q].astype(np.int64), kind="stable")]
        starts = np.flatnonzero(np.diff(self.level_Q[order_Q].astype(np.int64), prepend=-1))
        weights_SQ = np.asarray(weights_SG, dtype=np.float64)[:, self.image_Q[order_Q]]
        yes_Q = self.yes_Q[order_Q]
        yes = np.add.reduceat(weights_SQ * yes_Q, starts, axis=1)
        no = np.add.reduceat(weights_SQ * ~yes_Q, starts, axis=1)
        return yes, no


@dataclass(frozen=True)
class Auroc(ScoredQuestions, Statistic):
    """Area under the ROC curve: share of pairs of a yes and a no question in which yes scores higher; ties count half.

    Pairs are of any images and objects. NaN without yes or without no questions. Equal scores for all give exactly .5.
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
class ObjectAP(ScoredQuestions, Statistic):
    """Mean over objects of the average precision over the object's questions: images that show it against the others.

    AP is the sum over levels of precision times added recall, without interpolation, equal scores as one step:
    scikit-learn's `average_precision_score`. Objects with questions of one answer alone are left out; NaN
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
    """Number of questions whose score equals that of a question with the other answer.

    >>> tied_questions(np.array([0, 1, 1, 1, 2]), np.array([True, True, False, False, True]))
    3
    """
    shared = np.intersect1d(level_Q[yes_Q], level_Q[~yes_Q])
    return int(np.isin(level_Q, shared).sum())


def best_f1_threshold(score_Q: Float[ndarray, "Q"], yes_Q: Bool[ndarray, "Q"]) -> float:
    """Threshold (yes at or above it) with the highest F1; of several the highest.

    It lies half-way between two scores; minus infinity if yes to all questions is best, or if no answer is yes.

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
