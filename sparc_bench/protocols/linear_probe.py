"""Linear probe: logistic regression on frozen image vectors, its regularisation chosen on held-out train images.

As in CLIP's paper (Radford et al. 2021, appendix A.3): scikit-learn's L-BFGS, a sweep of the L2 penalty's strength on
held-out train images, then a fit on all train images at the chosen strength. Unlike there, the vectors are those of the
joint space, which every model here has (CLIP probed the vectors before the projection).

Shapes: X train images, N images, D joint width, C classes.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from pydantic import Field, field_validator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sparc_bench.cards.bounds import Iterations, Number, Strength
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._frozen_features import TrainTestSplit, accuracy, setting_note

VERSION = 1
TITLE = "linear probe: logistic regression on image vectors"
NEEDS = frozenset({"image", "global"})
DATA = frozenset({"labels", "splits"})

TOLERANCE = 1e-5
"""Largest component of the mean loss's gradient at which L-BFGS stops.

One of 2,000 predictions from unit vectors differs from those at 1e-9; at scikit-learn's default of 1e-4 up to 18 do."""


class Options(Strict):
    """Options of the protocol in a task card."""

    vectors: Literal["unit", "given"]
    """unit: L2-normalised image vectors, independent of the scale of a model's head; given: the model's own length"""
    standardise: bool
    """whether each dimension is scaled to mean 0 and variance 1 over the fitted images"""
    C: tuple[Strength, ...]
    """grid of scikit-learn's C (1 / strength of the L2 penalty; the loss is summed over images), ascending"""
    held_out: Annotated[float, Field(gt=0, lt=1)]
    """share of each class's train images held out to choose C (on equal accuracy the smallest C)"""
    max_iter: Iterations
    """most iterations of L-BFGS for each C; a note names fits that did not converge"""
    top_k: tuple[Number, ...]
    """k of the top-k accuracies; a k at or above the number of classes (always 1) is left out, with a note"""
    ties: Literal["expected"]
    """expected: the mean credit over random orders of the classes with equal scores in float32"""

    @field_validator("C")
    @classmethod
    def _is_a_grid(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if len(grid) < 2 or grid[0] <= 0 or list(grid) != sorted(set(grid)):
            raise ValueError("must be two or more numbers above 0, ascending")
        return grid


def kept(encoder: Encoder) -> frozenset[str]:  # noqa: ARG001 - the seam
    """Image features of all images, some of which are fitted and others scored."""
    return frozenset({"global"})


def score(encoder: Encoder, data: Examples, options: Options) -> Outcome:
    """Choose C on held-out train images, fit all train images, score the test images.

    `top<k>` is the mean credit over test images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without test images are left out). The tie count is the number of test images whose credit at some
    k is neither 0 nor 1. C is chosen without test images.

    Raises:
        UserError: no test images, train images of a single class, or none to hold out.
    """
    split = TrainTestSplit.of(data)
    held_X = split.held_out(options.held_out)
    train_XD = split.train_features(encoder, options.vectors == "unit")
    sweep = _Classifier(train_XD[~held_X], split.train_class_X[~held_X], len(split.label_C), options)
    tried: dict[float, float] = {}
    unfinished = []
    for c in options.C:  # warm start: each fit begins at the weights of the one before
        unfinished += [] if sweep.fit(c) else [f"{c:g}"]
        tried[c] = accuracy(sweep.scores(train_XD[held_X]), split.train_class_X[held_X])
    best = max(tried, key=lambda c: (tried[c], -c))
    notes = [setting_note("C", f"{best:g}", {f"{c:g}": share for c, share in tried.items()}, int(held_X.sum()))]
    if best in (options.C[0], options.C[-1]):
        notes.append(f"C = {best:g} is an end of its grid: a wider one may score higher.")
    if unfinished:
        notes.append(f"L-BFGS had not converged on the part of train at C = {', '.join(unfinished)}.")
    whole = _Classifier(train_XD, split.train_class_X, len(split.label_C), options)
    if not whole.fit(best):
        notes.append(f"L-BFGS had not converged on all of train after {options.max_iter} iterations.")
    scores_TC = whole.scores(split.test_features(encoder, options.vectors == "unit"))
    return split.outcome(scores_TC, options.top_k, {"held_out_images": int(held_X.sum())}, notes)


class _Classifier:
    """Logistic regression over `classes` classes; some may have no image to fit."""

    def __init__(
        self, vectors_ND: Float32[ndarray, "N D"], class_N: Int[ndarray, "N"], classes: int, options: Options
    ) -> None:
        scale = options.standardise
        self._scaler = StandardScaler(with_mean=scale, with_std=scale).fit(vectors_ND.astype(np.float64))
        self._vectors_ND, self._class_N, self._classes = self._scaled(vectors_ND), class_N, classes
        self._model = LogisticRegression(tol=TOLERANCE, max_iter=options.max_iter, warm_start=True)

    def fit(self, c: float) -> bool:
        """Fit at this C, from the weights of the last fit; returns whether L-BFGS converged."""
        self._model.set_params(C=c)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._model.fit(self._vectors_ND, self._class_N)
        converged = True
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                converged = False
            else:
                warnings.warn(warning.message, stacklevel=2)
        return converged

    def scores(self, vectors_ND: Float32[ndarray, "N D"]) -> Float32[ndarray, "N C"]:
        """Log odds of each class; minus infinity for classes without a fitted image."""
        found: Float[ndarray, "N C"] = self._model.decision_function(self._scaled(vectors_ND))
        if found.ndim == 1:  # scikit-learn scores two classes with one number
            found = np.stack([-found, found], axis=1)
        scores_NC = np.full((len(vectors_ND), self._classes), -np.inf, dtype=np.float32)
        scores_NC[:, self._model.classes_] = found
        return scores_NC

    def _scaled(self, vectors_ND: Float32[ndarray, "N D"]) -> Float[ndarray, "N D"]:
        scaled: Float[ndarray, "N D"] = self._scaler.transform(vectors_ND.astype(np.float64))
        return scaled
