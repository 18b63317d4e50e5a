"""Top-k credit: is an image's class among its k best-scored classes?

Shapes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class ClassRanks:
    """Ranks of each image's own class, from which top-k credits follow.

    Attributes:
        above_N: number of classes with a higher score than the image's own.
        tied_N: number of classes with the same score, its own included.
    """

    above_N: Int[ndarray, "N"]
    tied_N: Int[ndarray, "N"]

    @classmethod
    def of(cls, scores_NC: Float[ndarray, "N C"], label_N: Int[ndarray, "N"]) -> ClassRanks:
        """Ranks of the class `label_N` of each image."""
        own_N1 = np.take_along_axis(scores_NC, label_N[:, None], axis=1)
        return cls((scores_NC > own_N1).sum(axis=1), (scores_NC == own_N1).sum(axis=1))

    def credit(self, k: int) -> Float[ndarray, "N"]:
        """Expected top-k credit (see `topk_score`)."""
        credit_N: ndarray = np.clip((k - self.above_N) / self.tied_N, 0.0, 1.0)
        return credit_N


def topk_score(scores_NC: Float[ndarray, "N C"], label_N: Int[ndarray, "N"], k: int) -> Float[ndarray, "N"]:
    """Expected top-k credit of every image under a random order of the classes that tie with its own.

    A class with `above` better ones, in a tie of `tied` classes (itself included), is among the best k with probability
    (k - above) / tied, clipped to 0..1. Equal scores give k / C. With k >= C every credit is 1: leave such a k out.

    >>> topk_score(np.array([[3.0, 2.0, 2.0, 2.0]]), np.array([2]), k=2)
    array([0.33333333])
    """
    return ClassRanks.of(scores_NC, label_N).credit(k)
