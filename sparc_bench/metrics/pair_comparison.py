"""Winoground's scores of two images and two captions: does each image prefer its caption, and each caption its image?

Shapes: G groups; axis 1 of a score array is the image, axis 2 the caption; caption i is true of image i.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

Ties = Literal["expected", "lose", "win"]
"""Rule for ties.

expected: the mean credit over random orders of equal scores; lose: an error (Winoground's rule); win: right (an argmax
that finds the true one first, as ARO's order tasks have it), so that a constant model is always right.
"""


@dataclass(frozen=True)
class PairComparison:
    """Credits (0 to 1) of every group.

    Attributes:
        text_G: text score: for both images the right caption scores higher.
        image_G: image score: for both captions the right image scores higher.
        group_G: group score: all four comparisons are right.
        own_G2: image i and caption i prefer each other (two of the four comparisons).
        tied_G: whether one of the four comparisons is a tie.
    """

    text_G: Float[ndarray, "G"]
    image_G: Float[ndarray, "G"]
    group_G: Float[ndarray, "G"]
    own_G2: Float[ndarray, "G 2"]
    tied_G: Bool[ndarray, "G"]


def compare_pairs(
    image_to_text_G22: Float[ndarray, "G 2 2"], text_to_image_G22: Float[ndarray, "G 2 2"], ties: Ties
) -> PairComparison:
    """Text, image and group score of Winoground (Thrush et al. 2022, section 3.2).

    Captions compete for an image under the image-to-text scores, images for a caption under the text-to-image scores;
    most models have one matrix for both. Under "expected" a credit is the mean over random orders of equal scores: four
    equal scores give 1/4, 1/4 and 1/6, the same as random scores. Under "lose" they give 0, under "win" 1.
    """
    texts = _margins(image_to_text_G22, axis=2)
    images = _margins(text_to_image_G22, axis=1)
    tied_G = (texts == 0).any(axis=(1, 2)) | (images == 0).any(axis=(1, 2))
    if ties == "lose":
        return _credits(texts > 0, images > 0, tied_G)
    if ties == "win":
        return _credits(texts >= 0, images >= 0, tied_G)
    orders = [np.array(order, dtype=np.float64).reshape(1, 2, 2) for order in permutations(range(4))]
    drawn = []
    for order_122 in orders:
        texts_won = (texts > 0) | ((texts == 0) & (_margins(order_122, axis=2) > 0))
        images_won = (images > 0) | ((images == 0) & (_margins(order_122, axis=1) > 0))
        drawn.append(_credits(texts_won, images_won, tied_G))
    return PairComparison(
        text_G=_average([credit.text_G for credit in drawn]),
        image_G=_average([credit.image_G for credit in drawn]),
        group_G=_average([credit.group_G for credit in drawn]),
        own_G2=_average([credit.own_G2 for credit in drawn]),
        tied_G=tied_G,
    )


def _margins(scores_G22: Float[ndarray, "G 2 2"], axis: int) -> Float[ndarray, "G 2 2"]:
    """Own score minus the rival's along `axis`; the diagonal holds the two comparisons."""
    margin = scores_G22 - np.flip(scores_G22, axis=axis)
    # inf off the diagonal is a clear win, so that any() and all() depend on the two comparisons alone
    return np.where(np.eye(2, dtype=bool), margin, np.inf)


def _average(credits: list[ndarray]) -> ndarray:
    return np.asarray(np.mean(credits, axis=0))


def _credits(texts_won: ndarray, images_won: ndarray, tied_G: ndarray) -> PairComparison:
    both = texts_won & images_won
    return PairComparison(
        text_G=np.asarray(texts_won.all(axis=(1, 2)), dtype=np.float64),
        image_G=np.asarray(images_won.all(axis=(1, 2)), dtype=np.float64),
        group_G=np.asarray(both.all(axis=(1, 2)), dtype=np.float64),
        own_G2=np.stack([both[:, 0, 0], both[:, 1, 1]], axis=1).astype(np.float64),
        tied_G=tied_G,
    )
