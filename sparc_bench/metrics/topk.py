"""Is the right class among the best k?

Shapes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class ClassRanks:
    """Where each image's own class stands: all that top-k credits depend on.

    Attributes:
        above_N: classes that score higher than its own.
        tied_N: classes that score the same, its own among them.
    """

    above_N: Int[ndarray, "N"]
    tied_N: Int[ndarray, "N"]

    @classmethod
    def of(cls, scores_NC: Float[ndarray, "N C"], label_N: Int[ndarray, "N"]) -> ClassRanks:
        """Of the class `label_N` of each image."""
        own_N1 = np.take_along_axis(scores_NC, label_N[:, None], axis=1)
        return cls((scores_NC > own_N1).sum(axis=1), (scores_NC == own_N1).sum(axis=1))

    def credit(self, k: int) -> Float[ndarray, "N"]:
        """Expected top-k credit (see `topk_score`)."""
        credit_N: ndarray = np.clip((k - self.above_N) / self.tied_N, 0.0, 1.0)
        return credit_N


def topk_score(scores_NC: Float[ndarray, "N C"], label_N: Int[ndarray, "N"], k: int) -> Float[ndarray, "N"]:
    """Expected top-k credit of every image under a random order of the classes that tie with its own.

    A class beaten by `above` others and tied with `tied` (itself among them) is in the best k with probability
    min(1, places left / tied). All scores equal give k / C. With k >= C every credit is 1, which says nothing: the
    caller should leave such a k out.

    >>> topk_score(np.array([[3.0, 2.0, 2.0, 2.0]]), np.array([2]), k=2)
    array([0.33333333])
    """
    return ClassRanks.of(scores_NC, label_N).credit(k)
