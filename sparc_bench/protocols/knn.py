"""k-nearest-neighbour classification of test images by their nearest train images.

The rule of Wu et al. 2018 (arXiv:1805.01978, section 3.4) and DINO (Caron et al. 2021): each of the k nearest train
images, of cosine similarity s, votes for its class with exp(s / temperature). scikit-learn finds the neighbours
exactly, in bounded memory.

Shapes: X train images, N images, J neighbours, D joint width, C classes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray
from pydantic import Field, model_validator
from sklearn.neighbors import NearestNeighbors

from sparc_bench.cards.bounds import Count, Number
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._frozen_features import TrainTestSplit, accuracy, setting_note

VERSION = 1
TITLE = "k nearest neighbours among the train images' vectors"
NEEDS = frozenset({"image", "global"})
DATA = frozenset({"labels", "splits"})

_CELLS = 4_000_000
"""Neighbours (test images x neighbours) in memory at once."""


class Options(Strict):
    """Options of the protocol in a task card."""

    k: tuple[Count, ...]
    """number of voting neighbours; of several, the one with the best accuracy on held-out train images"""
    held_out: Annotated[float, Field(ge=0, lt=1)]
    """share of each class's train images held out to choose k (on equal accuracy the largest k); 0 for a single k"""
    temperature: Annotated[float, Field(gt=0, le=math.inf, allow_inf_nan=True)]
    """temperature of a neighbour's vote, exp(cosine similarity / temperature); inf: equal votes"""
    top_k: tuple[Number, ...]
    """k of the top-k accuracies; a k at or above the number of classes (always 1) is left out, with a note"""
    ties: Literal["expected"]
    """expected: neighbours that tie for the last of the k places share them, and tied classes get the mean credit over
    random orders; a tie is equality in float32"""

    @model_validator(mode="after")
    def _choosable(self) -> Options:
        if min(self.k, default=0) < 1:
            raise ValueError("k counts neighbours: name at least one k, each of 1 or more")
        if (len(self.k) > 1) != (self.held_out > 0):
            raise ValueError("several k need held_out above 0 to choose one of them, and a single k needs held_out = 0")
        return self


def kept(encoder: Encoder) -> frozenset[str]:  # noqa: ARG001 - the seam
    """Image features of all images, some of which are fitted and others scored."""
    return frozenset({"global"})


def score(encoder: Encoder, data: Examples, options: Options) -> Outcome:
    """Classify every test image by the votes of its nearest train images.

    `top<k>` is the mean credit over test images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without test images are left out). The tie count is the number of test images whose credit at some k
    is neither 0 nor 1; with top5 this includes every image whose class got no vote. The number of neighbours is chosen
    without test images.

    Raises:
        UserError: no test images, train images of a single class, fewer train images than a k, or none to hold out.
    """
    split = TrainTestSplit.of(data)
    held_X = split.held_out(options.held_out) if options.held_out else np.zeros(len(split.train_X), dtype=bool)
    if max(options.k) > (~held_X).sum():
        raise UserError(f"k = {max(options.k)} is more than the {(~held_X).sum()} train images: give a smaller k.")
    train_XD = split.train_features(encoder, unit=True)
    counts, notes, k = {}, [], options.k[0]
    if len(options.k) > 1:
        kept = _Neighbours(train_XD[~held_X], split.train_class_X[~held_X], len(split.label_C), options.temperature)
        votes = kept.votes(train_XD[held_X], options.k)[0]
        tried = {each: accuracy(votes[each], split.train_class_X[held_X]) for each in options.k}
        k = max(tried, key=lambda each: (tried[each], each))
        counts["held_out_images"] = int(held_X.sum())
        notes.append(setting_note("k", str(k), {str(each): share for each, share in tried.items()}, int(held_X.sum())))
    whole = _Neighbours(train_XD, split.train_class_X, len(split.label_C), options.temperature)
    votes, shared = whole.votes(split.test_features(encoder, unit=True), (k,))
    counts |= {"neighbours": k, "images_with_tied_neighbours": shared[k]}
    return split.outcome(votes[k], options.top_k, counts, notes)


class _Neighbours:
    """Nearest-neighbour search among labelled unit vectors, and the neighbours' votes."""

    def __init__(
        self, vectors_XD: Float32[ndarray, "X D"], class_X: Int[ndarray, "X"], classes: int, temperature: float
    ) -> None:
        # unit vectors have the same order by distance as by cosine, and scikit-learn's distances are in float64
        self._search = NearestNeighbors(algorithm="brute", metric="euclidean").fit(vectors_XD)
        self._class_X, self._classes, self._temperature = class_X, classes, temperature

    def votes(
        self, vectors_ND: Float32[ndarray, "N D"], ks: tuple[int, ...]
    ) -> tuple[dict[int, Float32[ndarray, "N C"]], dict[int, int]]:
        """(k -> sums of votes, k -> number of images with a tie for the last of the k places)."""
        votes = {k: np.zeros((len(vectors_ND), self._classes), dtype=np.float32) for k in ks}
        shared = dict.fromkeys(ks, 0)
        pending_N, width = np.arange(len(vectors_ND)), min(max(ks) + 1, len(self._class_X))
        while len(pending_N):  # images whose tie for the last place exceeds `width` are searched again, twice as wide
            step, wider = max(1, _CELLS // width), []
            for rows in np.split(pending_N, range(step, len(pending_N), step)):
                nearest_NJ, cosine_NJ = self._nearest(vectors_ND[rows], width)
                done_N = (cosine_NJ[:, max(ks) - 1] > cosine_NJ[:, -1]) | (width == len(self._class_X))
                for k in ks:
                    share_NJ = neighbour_shares(cosine_NJ[done_N], k)
                    votes[k][rows[done_N]] = self._sums(nearest_NJ[done_N], cosine_NJ[done_N], share_NJ)
                    shared[k] += int(((share_NJ > 0) & (share_NJ < 1)).any(axis=1).sum())
                wider.append(rows[~done_N])
            pending_N, width = np.concatenate(wider), min(2 * width, len(self._class_X))
        return votes, shared

    def _nearest(
        self, vectors_ND: Float32[ndarray, "N D"], width: int
    ) -> tuple[Int[ndarray, "N J"], Float32[ndarray, "N J"]]:
        distance_NJ, nearest_NJ = self._search.kneighbors(vectors_ND, n_neighbors=width)
        cosine_NJ = (1 - distance_NJ.astype(np.float64) ** 2 / 2).astype(np.float32)
        return nearest_NJ, cosine_NJ

    def _sums(
        self, nearest_NJ: Int[ndarray, "N J"], cosine_NJ: Float32[ndarray, "N J"], share_NJ: ndarray
    ) -> Float32[ndarray, "N C"]:
        # similarities relative to the nearest neighbour's: the same order, and exp cannot overflow
        vote_NJ = share_NJ * np.exp((cosine_NJ.astype(np.float64) - cosine_NJ[:, :1]) / self._temperature)
        cell_NJ = np.arange(len(nearest_NJ))[:, None] * self._classes + self._class_X[nearest_NJ]
        sums = np.bincount(cell_NJ.ravel(), vote_NJ.ravel(), minlength=len(nearest_NJ) * self._classes)
        return sums.reshape(len(nearest_NJ), self._classes).astype(np.float32)


def neighbour_shares(cosine_NJ: Float32[ndarray, "N J"], k: int) -> ndarray:
    """Share of each neighbour in the k nearest places; `cosine_NJ` is in descending order.

    Neighbours of equal similarity share equally the places that nearer ones leave.

    >>> neighbour_shares(np.array([[0.9, 0.5, 0.5, 0.1]], dtype=np.float32), k=2)
    array([[1. , 0.5, 0.5, 0. ]])
    """
    new_NJ = np.diff(cosine_NJ, axis=1, prepend=np.inf) < 0
    group_NJ = np.cumsum(new_NJ, axis=1) - 1
    cell_NJ = np.arange(len(cosine_NJ))[:, None] * cosine_NJ.shape[1] + group_NJ
    tied = np.bincount(cell_NJ.ravel(), minlength=cosine_NJ.size).reshape(cosine_NJ.shape)
    nearer = np.cumsum(tied, axis=1) - tied
    share = np.clip((k - nearer) / np.maximum(tied, 1), 0.0, 1.0)
    share_NJ: ndarray = np.take_along_axis(share, group_NJ, axis=1)
    return share_NJ
