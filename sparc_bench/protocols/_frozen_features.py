"""Train and test images of a data split, their frozen features, and accuracies, for `linear_probe` and `knn`.

Train images are sorted by id and classes by name: the order in which a reader lists them changes no number.

Shapes: X train images, T test images, D joint width, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray

from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, recut
from sparc_bench.errors import UserError
from sparc_bench.features import present
from sparc_bench.features import unit as normalised
from sparc_bench.images.view import View
from sparc_bench.metrics.statistic import ClassMean, Mean, Statistic
from sparc_bench.metrics.topk import topk_score
from sparc_bench.protocol import Outcome


@dataclass(frozen=True)
class TrainTestSplit:
    """Train and test images of a data split; classes are numbered in the order of their sorted names.

    Attributes:
        data: the data split.
        label_C: the data set's label of each class.
        train_X: rows of the train examples in `data`, sorted by id.
        train_class_X: class of each train example.
        test_T: rows of the test examples, in the data's order.
        test_class_T: class of each test example.
    """

    data: Examples
    label_C: Int[ndarray, "C"]
    train_X: Int[ndarray, "X"]
    train_class_X: Int[ndarray, "X"]
    test_T: Int[ndarray, "T"]
    test_class_T: Int[ndarray, "T"]

    @classmethod
    def of(cls, data: Examples) -> TrainTestSplit:
        """Split by the examples' tag `split`, "train" or "test".

        Raises:
            UserError: no test images, or train images of fewer than two classes (a small --limit).
        """
        label_C = np.array(sorted(range(len(data.classes)), key=lambda label: data.classes[label]), dtype=np.int64)
        rank_C = np.argsort(label_C)
        label_N = np.array([-1 if example.label is None else example.label for example in data], dtype=np.int64)
        part_N = np.array([example.tags.get("split", "") for example in data])
        if (label_N < 0).any() or not np.isin(part_N, ("train", "test")).all():
            raise RuntimeError(
                f"{data.dataset}:{data.split} has examples without label or tagged neither train nor test"
            )
        train_X = np.array(
            sorted(np.flatnonzero(part_N == "train").tolist(), key=lambda row: data.examples[row].id), dtype=np.int64
        )
        test_T = np.flatnonzero(part_N == "test")
        fitted = len(np.unique(label_N[train_X]))
        if fitted < 2 or not len(test_T):
            raise UserError(
                f"A probe needs train images of two classes and test images, but {data.dataset}:{data.split} has here "
                f"{len(train_X)} train images of {fitted} classes and {len(test_T)} test images: give a larger "
                "--limit, or none."
            )
        return cls(data, label_C, train_X, rank_C[label_N[train_X]], test_T, rank_C[label_N[test_T]])

    def train_features(self, encoder: Encoder, unit: bool) -> Float32[ndarray, "X D"]:
        """Global vectors of the train images, L2-normalised if `unit`."""
        return global_vectors(encoder, [self.data.examples[row].view for row in self.train_X], unit)

    def test_features(self, encoder: Encoder, unit: bool) -> Float32[ndarray, "T D"]:
        """Global vectors of the test images, L2-normalised if `unit`."""
        return global_vectors(encoder, [self.data.examples[row].view for row in self.test_T], unit)

    def held_out(self, share: float) -> Bool[ndarray, "X"]:
        """Mask of the held-out train images: of each class the `share` whose ids have the smallest sha256.

        The share is rounded to whole images, at least one and never all of a class; a class of one image keeps it.

        Raises:
            UserError: no class has a second image.
        """
        held_X = np.zeros(len(self.train_X), dtype=bool)
        digest_X = [hashlib.sha256(self.data.examples[row].id.encode()).digest() for row in self.train_X]
        for label in np.unique(self.train_class_X):
            members = sorted(np.flatnonzero(self.train_class_X == label), key=lambda index: digest_X[index])
            held_X[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
        if not held_X.any():
            raise UserError(
                f"{self.data.dataset}:{self.data.split} has one train image of each class, and none can be held out: "
                "give more train images."
            )
        return held_X

    def outcome(
        self,
        scores_TC: Float32[ndarray, "T C"],
        top_k: Sequence[int],
        counts: Mapping[str, int],
        notes: Sequence[str],
    ) -> Outcome:
        """Outcome of test scores: top-k accuracies and mean per class; ties get the expected credit.

        The reference row `constant` always predicts the most frequent train classes.
        """
        shown = [k for k in top_k if k < len(self.label_C)]
        said = [f"top{k} is left out: there are only {len(self.label_C)} classes." for k in top_k if k not in shown]
        train_C = np.bincount(self.train_class_X, minlength=len(self.label_C))
        unknown = int((train_C[self.test_class_T] == 0).sum())
        if unknown:
            said.append(f"{unknown} test images are of classes without a train image.")
        metrics, first_T, ties = self._metrics(scores_TC, shown)
        frequency_TC = np.broadcast_to(train_C.astype(np.float32), scores_TC.shape)
        constant = {name: stat.value for name, stat in self._metrics(frequency_TC, shown)[0].items()}
        label_T, names = self.label_C[self.test_class_T], self.data.classes
        return Outcome(
            metrics=metrics,
            groups={"class": {names[label]: _within(first_T, label_T == label) for label in np.unique(label_T)}},
            examples={
                "correct": first_T,
                "predicted": self.label_C[scores_TC.argmax(axis=1)],
                "label": label_T,
            },
            scored=self.test_T,
            ties=ties,
            counts={"images": len(self.test_T), "train_images": len(self.train_X), "classes": len(train_C), **counts},
            reference_rows={"constant": constant},
            notes=(*said, *notes),
        )

    def _metrics(
        self, scores_TC: Float32[ndarray, "T C"], top_k: Sequence[int]
    ) -> tuple[dict[str, Statistic], Float[ndarray, "T"], int]:
        credits_kT = [topk_score(scores_TC, self.test_class_T, k) for k in (1, *top_k)]
        first_T, images = credits_kT[0], len(self.test_T)
        metrics: dict[str, Statistic] = {f"top{k}": Mean.of(c) for k, c in zip(top_k, credits_kT[1:], strict=True)}
        metrics["mean_per_class"] = ClassMean.of(
            first_T, self.test_class_T, np.arange(images), images, len(self.label_C)
        )
        return metrics, first_T, int(np.any([(c > 0) & (c < 1) for c in credits_kT], axis=0).sum())


def global_vectors(encoder: Encoder, views: Sequence[View], unit: bool) -> Float32[ndarray, "N D"]:
    """Global image vectors in the joint space, in float32; L2-normalised if `unit`."""
    found, start = np.empty((0, 0), dtype=np.float32), 0
    for images in recut(encoder.stream([views], frozenset({"global"})), most=256):
        vectors_ND = present(images.global_ND, "image").detach().float().cpu()
        if not start:  # one array, never copied: ImageNet's train features are 2.6 GB
            found = np.empty((len(views), vectors_ND.shape[1]), dtype=np.float32)
        found[start : start + len(vectors_ND)] = (normalised(vectors_ND) if unit else vectors_ND).numpy()
        start += len(vectors_ND)
    return found


def accuracy(scores_NC: Float32[ndarray, "N C"], class_N: Int[ndarray, "N"]) -> float:
    """Top-1 accuracy with the expected credit of ties; the criterion for settings on the held-out images."""
    return float(topk_score(scores_NC, class_N, 1).mean())


def setting_note(name: str, setting: str, tried: Mapping[str, float], held_out: int) -> str:
    """Sentence on the chosen setting, with the held-out accuracy of every tried one."""
    found = ", ".join(f"{value} {100 * share:.1f} %" for value, share in tried.items())
    return f"{name} = {setting} was chosen by accuracy on {held_out} held-out train images: {found}."


def _within(credit_T: ndarray, of_T: ndarray) -> Mean:
    return Mean(credit_T * of_T, of_T.astype(np.float64))
