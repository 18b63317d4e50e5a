"""COCO's average precision as a statistic with image weights, for its interval.

pycocotools matches detections to objects within each image and class. Image weights leave the matches as they are and
change only the counts after them: objects, and true and false positives ahead of each true positive. A false positive
is therefore kept as its image and its place among the true positives, without its score.

Shapes: G images, S sets of weights, K classes, T IoU thresholds, A marks, F plain false positives, D detections of a
class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt
from numpy import ndarray
from pycocotools.cocoeval import COCOeval

from sparc_bench.metrics.statistic import Statistic

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recall levels at which COCO reads the precision."""
_CELLS = 4_000_000
_FEW_IMAGES = 5
"""Images with objects of a class, on average, under which no spread between images shows how unsure AP is."""


@dataclass(frozen=True)
class AveragePrecision(Statistic):
    """Mean over classes and IoU thresholds of the interpolated precision at 101 recall levels.

    Classes without objects are left out of the mean; NaN without objects of any class. Weights of one give exactly
    COCOeval's number; whole weights give its number for the data set with repeated images (each copy right after its
    original; tied detections of one image and class are copied detection by detection).

    A mark is a detection that is a true positive or ignored (matched to a crowd, or outside the area range) at one
    threshold at least; the rest are plain false positives, each kept as its image and the number of marks of its class
    with a higher score.

    Source: pycocotools COCOeval.accumulate; Lin et al. 2014, arXiv 1405.0312.

    Attributes:
        truths_GK: number of objects of each image and class.
        false_GK: number of plain false positives of each image and class.
        false_place_F: number of marks of its class ahead of each plain false positive; ordered by class, then image.
        mark_class_A: class of each mark; ascending, within a class best score first.
        mark_image_A: image of each mark.
        true_AT: whether the mark is a true positive at the threshold.
        ignored_AT: whether the mark is ignored at the threshold.
    """

    kind: ClassVar[str] = "average_precision"
    truths_GK: UInt[ndarray, "G K"]
    false_GK: UInt[ndarray, "G K"]
    false_place_F: UInt[ndarray, "F"]
    mark_class_A: UInt[ndarray, "A"]
    mark_image_A: UInt[ndarray, "A"]
    true_AT: Bool[ndarray, "A T"]
    ignored_AT: Bool[ndarray, "A T"]

    @classmethod
    def of(cls, evaluation: COCOeval, area: int = 0, thresholds: Sequence[int] | None = None) -> AveragePrecision:
        """Average precision of a COCOeval after `evaluate()`.

        Args:
            evaluation: pycocotools' evaluation; its image ids in ascending order are the clusters.
            area: index of the area range.
            thresholds: indices of the averaged IoU thresholds; None for all.
        """
        params = evaluation.params
        images, chosen = len(params.imgIds), list(range(len(params.iouThrs)) if thresholds is None else thresholds)
        truths_GK = np.zeros((images, len(params.catIds)), dtype=np.int64)
        false_GK = np.zeros_like(truths_GK)
        places, mark_images, mark_classes = [], [], []
        true, ignored = [np.zeros((0, len(chosen)), dtype=bool)], [np.zeros((0, len(chosen)), dtype=bool)]
        for k in range(len(params.catIds)):
            first = (k * len(params.areaRng) + area) * images
            found = [(g, entry) for g, entry in enumerate(evaluation.evalImgs[first : first + images]) if entry]
            if not found:
                continue
            truths_GK[[g for g, _ in found], k] = [np.count_nonzero(e["gtIgnore"] == 0) for _, e in found]
            scores_D = np.concatenate([entry["dtScores"] for _, entry in found])
            order_D = np.argsort(-scores_D, kind="stable")
            image_D = np.repeat([g for g, _ in found], [len(e["dtScores"]) for _, e in found])[order_D]
            ignored_DT = np.concatenate([e["dtIgnore"] for _, e in found], axis=1)[chosen].T[order_D].astype(bool)
            matched_DT = np.concatenate([e["dtMatches"] for _, e in found], axis=1)[chosen].T[order_D] > 0
            true_DT = matched_DT & ~ignored_DT
            mark_D = (true_DT | ignored_DT).any(axis=1)
            ahead_F, image_F = np.cumsum(mark_D)[~mark_D], image_D[~mark_D]
            false_GK[:, k] = np.bincount(image_F, minlength=images)
            places.append(ahead_F[np.argsort(image_F, kind="stable")])
            mark_images.append(image_D[mark_D])
            mark_classes.append(np.full(np.count_nonzero(mark_D), k))
            true.append(true_DT[mark_D])
            ignored.append(ignored_DT[mark_D])
        return cls(
            truths_GK=_smallest(truths_GK),
            false_GK=_smallest(false_GK),
            false_place_F=_smallest(_joined(places)),
            mark_class_A=_smallest(_joined(mark_classes)),
            mark_image_A=_smallest(_joined(mark_images)),
            true_AT=np.concatenate(true),
            ignored_AT=np.concatenate(ignored),
        )

    @classmethod
    def joined(cls, parts: Sequence[AveragePrecision]) -> AveragePrecision:
        """One average precision over the classes of several evaluations of the same images, in order."""
        first_K = np.cumsum([0, *(part.truths_GK.shape[1] for part in parts[:-1])]).tolist()
        return cls(
            truths_GK=_smallest(np.concatenate([part.truths_GK for part in parts], axis=1)),
            false_GK=_smallest(np.concatenate([part.false_GK for part in parts], axis=1)),
            false_place_F=_smallest(np.concatenate([part.false_place_F for part in parts])),
            mark_class_A=_smallest(
                np.concatenate([part.mark_class_A.astype(np.int64) + k for part, k in zip(parts, first_K, strict=True)])
            ),
            mark_image_A=_smallest(np.concatenate([part.mark_image_A for part in parts])),
            true_AT=np.concatenate([part.true_AT for part in parts]),
            ignored_AT=np.concatenate([part.ignored_AT for part in parts]),
        )

    @property
    def objects_GC(self) -> Bool[ndarray, "G K"]:
        """Mask of the images with objects of a class; the rarest class limits the interval of a score of 0 or 1."""
        return self.truths_GK > 0

    @property
    def most_n(self) -> float | int:
        """Largest n of the interval: that of a share, where classes have fewer than five images on average."""
        per_class_C = self.clusters_per_class
        few = per_class_C is not None and len(per_class_C) and per_class_C.mean() < _FEW_IMAGES
        return self.effective_n if few else float("inf")

    def placed(self, place_G: Int[ndarray, "G"], clusters: int) -> AveragePrecision:
        """The same statistic with image g as cluster `place_G[g]` of `clusters` (reordered, or among more images)."""
        truths_GK, false_GK = (
            np.zeros((clusters, self.truths_GK.shape[1]), dtype=counts_GK.dtype)
            for counts_GK in (self.truths_GK, self.false_GK)
        )
        truths_GK[place_G], false_GK[place_G] = self.truths_GK, self.false_GK
        number_KG = self.false_GK.T.ravel().astype(np.int64)
        images, classes = self.false_GK.shape
        image_F = np.repeat(np.tile(place_G, classes), number_KG)
        class_F = np.repeat(np.repeat(np.arange(classes), images), number_KG)
        return replace(
            self,
            truths_GK=truths_GK,
            false_GK=false_GK,
            false_place_F=self.false_place_F[np.lexsort((image_F, class_F))],
            mark_image_A=_smallest(np.asarray(place_G, dtype=np.int64)[self.mark_image_A]),
        )

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Mean AP over the classes with objects under the weights."""
        weights_GS = np.ascontiguousarray(np.asarray(weights_SG, dtype=np.float64).T)
        truths_KS = self.truths_GK.T.astype(np.float64) @ weights_GS
        present_KS = truths_KS > 0
        total_S = np.zeros(weights_GS.shape[1])
        for k in np.flatnonzero(present_KS.any(axis=1)):
            step = max(1, _CELLS // max(1, int(self.false_GK[:, k].sum())))
            for start in range(0, len(total_S), step):
                block = slice(start, start + step)
                total_S[block] += self._class_ap(int(k), weights_GS[:, block], truths_KS[k, block])
        count_S = present_KS.sum(axis=0)
        mean_S: ndarray = np.divide(total_S, count_S, out=np.full(len(total_S), np.nan), where=count_S > 0)
        return mean_S

    def _false_slice(self, label: int) -> slice:
        ends_K = np.cumsum(self.false_GK.sum(axis=0, dtype=np.int64))
        return slice(int(ends_K[label - 1]) if label else 0, int(ends_K[label]))

    def _class_ap(self, label: int, weights_GS: ndarray, truths_S: ndarray) -> ndarray:
        """AP of one class, averaged over the thresholds; 0 where the class has no objects under the weights."""
        marks = slice(*np.searchsorted(self.mark_class_A, [label, label + 1]).tolist())
        false_AS = self._false_ahead(label, marks.stop - marks.start, weights_GS)
        weights_AS = weights_GS[self.mark_image_A[marks]]
        # the same detections match at most IoU thresholds, so the curve is computed once for each distinct pattern
        patterns = Counter(
            (true_A.tobytes(), ignored_A.tobytes())
            for true_A, ignored_A in zip(self.true_AT[marks].T, self.ignored_AT[marks].T, strict=True)
        )
        total_S = np.zeros(len(truths_S))
        for pattern, repeats in patterns.items():
            true_A, ignored_A = (np.frombuffer(column, dtype=bool) for column in pattern)
            hits_A = np.flatnonzero(true_A)
            counted_AS = np.cumsum(np.where(ignored_A[:, None], 0.0, weights_AS), axis=0)[hits_A] + false_AS[hits_A]
            total_S += repeats * _interpolated(np.cumsum(weights_AS[hits_A], axis=0), counted_AS, truths_S)
        return np.asarray(total_S / self.true_AT.shape[1])

    def _false_ahead(self, label: int, marks: int, weights_GS: ndarray) -> ndarray:
        """Weight of the plain false positives with a higher score than each mark of a class (A, S)."""
        place_F = self.false_place_F[self._false_slice(label)]
        order_F = np.argsort(place_F, kind="stable")
        order_F = order_F[place_F[order_F] < marks]
        if not len(order_F):
            return np.zeros((marks, weights_GS.shape[1]))
        image_F = np.repeat(np.arange(len(self.false_GK)), self.false_GK[:, label])
        places_U, starts_U = np.unique(place_F[order_F], return_index=True)
        sums_US = np.cumsum(np.add.reduceat(weights_GS[image_F[order_F]], starts_U, axis=0), axis=0)
        # a false positive with `place` marks ahead of it is itself ahead of mark number `place`
        position_A = np.searchsorted(places_U, np.arange(marks), side="right")
        return np.concatenate([np.zeros((1, sums_US.shape[1])), sums_US])[position_A]


def _interpolated(true_AS: ndarray, counted_AS: ndarray, truths_S: ndarray) -> ndarray:
    """Interpolated AP from the cumulative counts at each true positive, best score first."""
    if not len(true_AS):
        return np.zeros(len(truths_S))
    # COCOeval's own additions and divisions, so that recall levels are reached at the same detections
    precision_AS = true_AS / (counted_AS + np.spacing(1))
    envelope_AS = np.maximum.accumulate(precision_AS[::-1], axis=0)[::-1]
    recall_AS = np.divide(true_AS, truths_S, out=np.zeros_like(true_AS), where=truths_S > 0)
    reached_AS = np.searchsorted(RECALLS, recall_AS.ravel(), side="right").reshape(recall_AS.shape)
    gained_AS = np.diff(reached_AS, axis=0, prepend=0)
    ap_S = (envelope_AS * gained_AS).sum(axis=0) / len(RECALLS)
    return np.asarray(np.where(truths_S > 0, ap_S, 0.0))


def _joined(parts: list[ndarray]) -> ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _smallest(values: ndarray) -> ndarray:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
