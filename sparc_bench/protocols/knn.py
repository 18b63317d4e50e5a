"""k nearest neighbours: a test image goes to the class that the train images nearest to it vote for.

The rule of Wu et al. 2018 (arXiv:1805.01978, section 3.4) and DINO (Caron et al. 2021): cosine similarity s, and a vote
of exp(s / temperature) for each of the k nearest. scikit-learn finds them exactly, in bounded memory.

Shapes: X train images, N images, J neighbours, D joint width, C classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray
from pydantic import Field, model_validator
from sklearn.neighbors import NearestNeighbors

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._probe import Parts, accuracy, chosen_note

VERSION = 1
TITLE = "k nearest neighbours among the train images' vectors"
NEEDS = frozenset({"image", "global"})
DATA = frozenset({"labels", "splits"})

_CELLS = 4_000_000
"""So many neighbours are held at once."""


class Options(Strict):
    """What a card decides."""

    k: tuple[int, ...]
    """how many neighbours vote; of several the one is taken that is best on the held-out part of train"""
    held_out: Annotated[float, Field(ge=0, lt=1)]
    """share of each class's train images that k is chosen on (equal accuracies: the largest k); 0 where k is one"""
    temperature: Annotated[float, Field(gt=0)]
    """a neighbour of cosine similarity s votes with exp(s / temperature); inf: all votes are equal"""
    top_k: tuple[int, ...]
    """which k; one that reaches the number of classes is left out (it would always score 1), and a note says so"""
    ties: Literal["expected"]
    """expected: neighbours that tie for the last places share them, and tied classes get the credit of a random order;
    similarities and votes tie where they are equal in float32"""

    @model_validator(mode="after")
    def _choosable(self) -> Options:
        if min(self.k, default=0) < 1:
            raise ValueError("k counts neighbours: name at least one k, each of 1 or more")
        if (len(self.k) > 1) != (self.held_out > 0):
            raise ValueError("of several k one is chosen on held_out > 0 of train, and one k needs held_out = 0")
        return self


def run(encoder: Encoder, data: DataSplit, options: Options) -> Outcome:
    """Let the nearest train images vote on every test image.

    `top<k>` is the mean credit over test images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without test images are left out). The tie count is the number of test images whose credit at some k
    is neither 0 nor 1: with top5 all those whose class got no vote. No test image decides which k is taken.

    Raises:
        UserError: no test images, train images of one class alone, fewer of them than a k, or none to hold out.
    """
    parts = Parts.of(data)
    held_X = parts.held_out(options.held_out) if options.held_out else np.zeros(len(parts.train_X), dtype=bool)
    if max(options.k) > (~held_X).sum():
        raise UserError(f"k = {max(options.k)} is more than the {(~held_X).sum()} train images: give a smaller k.")
    train_XD = parts.train_features(encoder, unit=True)
    counts, notes, k = {}, [], options.k[0]
    if len(options.k) > 1:
        kept = _Neighbours(train_XD[~held_X], parts.train_class_X[~held_X], len(parts.label_C), options.temperature)
        votes = kept.votes(train_XD[held_X], options.k)[0]
        tried = {each: accuracy(votes[each], parts.train_class_X[held_X]) for each in options.k}
        k = max(tried, key=lambda each: (tried[each], each))
        counts["held_out_images"] = int(held_X.sum())
        notes.append(chosen_note("k", str(k), {str(each): share for each, share in tried.items()}, int(held_X.sum())))
    whole = _Neighbours(train_XD, parts.train_class_X, len(parts.label_C), options.temperature)
    votes, shared = whole.votes(parts.test_features(encoder, unit=True), (k,))
    counts |= {"neighbours": k, "images_with_tied_neighbours": shared[k]}
    return parts.outcome(votes[k], options.top_k, counts, notes)


class _Neighbours:
    """Unit vectors with their classes, of which the nearest vote."""

    def __init__(
        self, vectors_XD: Float32[ndarray, "X D"], class_X: Int[ndarray, "X"], classes: int, temperature: float
    ) -> None:
        # among unit vectors the order by distance is the order by cosine, and scikit-learn's distances are in float64
        self._search = NearestNeighbors(algorithm="brute", metric="euclidean").fit(vectors_XD)
        self._class_X, self._classes, self._temperature = class_X, classes, temperature

    def votes(
        self, vectors_ND: Float32[ndarray, "N D"], ks: tuple[int, ...]
    ) -> tuple[dict[int, Float32[ndarray, "N C"]], dict[int, int]]:
        """For each k the sums of votes, and for how many images neighbours tied for the last of the k places."""
        votes = {k: np.zeros((len(vectors_ND), self._classes), dtype=np.float32) for k in ks}
        shared = dict.fromkeys(ks, 0)
        pending_N, width = np.arange(len(vectors_ND)), min(max(ks) + 1, len(self._class_X))
        while len(pending_N):  # wider for those whose last places are tied beyond what was looked at
            step, wider = max(1, _CELLS // width), []
            for rows in np.split(pending_N, range(step, len(pending_N), step)):
                nearest_NJ, cosine_NJ = self._nearest(vectors_ND[rows], width)
                done_N = (cosine_NJ[:, max(ks) - 1] > cosine_NJ[:, -1]) | (width == len(self._class_X))
                for k in ks:
                    share_NJ = places(cosine_NJ[done_N], k)
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
        # relative to the nearest, which changes no order and keeps exp from overflowing
        vote_NJ = share_NJ * np.exp((cosine_NJ.astype(np.float64) - cosine_NJ[:, :1]) / self._temperature)
        cell_NJ = np.arange(len(nearest_NJ))[:, None] * self._classes + self._class_X[nearest_NJ]
        sums = np.bincount(cell_NJ.ravel(), vote_NJ.ravel(), minlength=len(nearest_NJ) * self._classes)
        return sums.reshape(len(nearest_NJ), self._classes).astype(np.float32)


def places(cosine_NJ: Float32[ndarray, "N J"], k: int) -> ndarray:
    """The share of one of the k nearest places that each neighbour has; `cosine_NJ` descends.

    All neighbours of equal similarity share what the nearer ones leave.

    >>> places(np.array([[0.9, 0.5, 0.5, 0.1]], dtype=np.float32), k=2)
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
