"""How well a map of a word over patches finds the pixels that the word names.

Every patch holds so many pixels of the word and so many other labelled pixels; a pixel across patches is split by area,
and unlabelled pixels (void, crowds, padding) are in neither. All scores are of the map at patch level: every pixel has
its patch's score, so that a patch that the word covers in part is right and wrong in part. A map that says nothing
scores the word's share of the pixels (AUC: 1/2), exactly.

Shapes: P patches, T distinct scores from the highest to the lowest, G images.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

SCORES = ("pointing", "ap", "auc", "soft_iou", "hard_iou")
"""Names of what `map_scores` returns, in order."""


def map_scores(
    scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]
) -> Float[ndarray, "5"]:
    """All scores of a map, as `SCORES` names them.

    Args:
        scores_P: the map.
        word_P: pixels of the word in each patch.
        other_P: other labelled pixels in each patch.
    """
    scorers = (pointing_score, average_precision_score, auc_score, soft_iou_score, hard_iou_score)
    return np.array([score(scores_P, word_P, other_P) for score in scorers])


def pointing_score(
    scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]
) -> float:
    """Chance that a pixel drawn from the labelled ones of the best patch (of all that tie for it) is the word's.

    0 where the best patches have no labelled pixel.

    >>> pointing_score(np.array([3.0, 3.0, 1.0]), np.array([4.0, 1.0, 0.0]), np.array([0.0, 3.0, 4.0]))
    0.625
    """
    best_P = scores_P == scores_P.max()
    word, other = word_P[best_P].sum(), other_P[best_P].sum()
    return float(word / (word + other)) if word + other > 0 else 0.0


def average_precision_score(
    scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]
) -> float:
    """Sum over the distinct scores, from the highest, of the gain in recall times the precision so far.

    Ties are one step, as in scikit-learn, whose `average_precision_score` this is on pixels. NaN without a pixel of the
    word.

    >>> average_precision_score(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    0.8333333333333333
    """
    word_T, other_T = _by_score(scores_P, word_P, other_P)
    found_T, seen_T = word_T.cumsum(), (word_T + other_T).cumsum()
    if not found_T[-1] > 0:
        return float("nan")
    precision_T = np.divide(found_T, seen_T, out=np.zeros_like(found_T), where=seen_T > 0)
    return float((word_T * precision_T).sum() / found_T[-1])


def auc_score(scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]) -> float:
    """Chance that a pixel of the word scores above another pixel, ties half (Mann-Whitney's U over its maximum).

    NaN where there is no pixel of the word, or no other.

    >>> auc_score(np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    0.5
    """
    word_T, other_T = _by_score(scores_P, word_P, other_P)
    pairs = word_T.sum() * other_T.sum()
    if not pairs > 0:
        return float("nan")
    above_T = word_T.cumsum() - word_T / 2
    return float((other_T * above_T).sum() / pairs)


def soft_iou_score(
    scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]
) -> float:
    """Intersection over union of the map's weights with the word's share of each patch.

    Weights are scores brought to 0..1 by minimum and maximum; those of equal scores are all 1. The sum of min(weight,
    share) over that of max(weight, share), patches weighted by their labelled pixels. NaN where none is labelled.
    """
    weight_P, pixels_P = min_max(scores_P), word_P + other_P
    share_P = np.divide(word_P, pixels_P, out=np.zeros(len(pixels_P)), where=pixels_P > 0)
    union = (pixels_P * np.maximum(weight_P, share_P)).sum()
    return float((pixels_P * np.minimum(weight_P, share_P)).sum() / union) if union > 0 else float("nan")


def hard_iou_score(
    scores_P: Shaped[ndarray, "P"], word_P: Shaped[ndarray, "P"], other_P: Shaped[ndarray, "P"]
) -> float:
    """Intersection over union, in pixels, of the word with the patches whose weight (as in soft IoU) is .5 or more."""
    chosen_P = min_max(scores_P) >= 0.5
    union = word_P.sum() + other_P[chosen_P].sum()
    return float(word_P[chosen_P].sum() / union) if union > 0 else float("nan")


def min_max(scores_P: Shaped[ndarray, "P"]) -> Float[ndarray, "P"]:
    """Scores brought to 0..1 by their minimum and maximum; ones where all are equal.

    >>> min_max(np.array([1.0, 2.0, 3.0])), min_max(np.array([2.0, 2.0]))
    (array([0. , 0.5, 1. ]), array([1., 1.]))
    """
    scores_P = np.asarray(scores_P, dtype=np.float64)
    span = scores_P.max() - scores_P.min()
    return np.asarray((scores_P - scores_P.min()) / span if span > 0 else np.ones_like(scores_P))


def centre_map(grid: tuple[int, int]) -> Float[ndarray, "P"]:
    """A map that is highest at the centre of the grid: minus the squared distance, in heights and widths of the grid.

    >>> centre_map((1, 3)).round(2) + 0.0
    array([-0.11,  0.  , -0.11])
    """
    down_K, across_L = (((np.arange(cells) + 0.5) / cells - 0.5) ** 2 for cells in grid)
    return np.asarray(-(down_K[:, None] + across_L[None, :]).reshape(-1))


def _by_score(scores_P: ndarray, word_P: ndarray, other_P: ndarray) -> tuple[ndarray, ndarray]:
    """Pixels of the word, and others, of each distinct score from the highest."""
    _, place_P = np.unique(-scores_P, return_inverse=True)
    return np.bincount(place_P, word_P), np.bincount(place_P, other_P)
