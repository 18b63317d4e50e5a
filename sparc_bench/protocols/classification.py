"""Zero-shot classification: an image is assigned to the class whose prompts score highest with it.

Shapes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.metrics.statistic import ClassMean, Mean, SparseMean, Statistic
from sparc_bench.metrics.topk import ClassRanks
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols._similarity_scores import image_batches, in_own_precision

VERSION = 1
TITLE = "zero-shot classification: top-k and mean per class"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"labels"})


class Options(Strict):
    """Options of the protocol in a task card."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """class names in the prompts: a class list (`imagenet` or a card of tasks/classes), or `own`: the data set's"""
    top_k: tuple[Number, ...]
    """k of the top-k accuracies; a k at or above the number of classes (always 1) is left out, with a note"""
    ties: Literal["expected"]
    """expected: the mean credit over random orders of the tied classes; duplicate class names tie"""


def run(encoder: Encoder, data: DataSplit, options: Options) -> Outcome:
    """Score every labelled image against all classes.

    `top<k>` is the mean credit over images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without images are left out). The tie count is the number of images whose credit at some k is
    neither 0 nor 1. `predicted` is the class with the highest score, the lowest index on ties.
    """
    words_C = class_words(options.classes, data.classes)
    return _outcome(
        class_scores(encoder, data, PromptedClasses(encoder, words_C, templates(options.prompts))), data, options
    )


def score(outputs: Similarity, data: DataSplit, options: Options) -> Outcome:
    """Outcome of a similarity matrix of images and classes.

    Its `texts` are the data set's class names, the card's class words, or the card's prompts; with prompts a class has
    the mean of its columns.
    """
    words_C = class_words(options.classes, data.classes)
    ways: list[list[tuple[str, ...]]] = [
        [(name,) for name in data.classes],
        [(words,) for words in words_C],
        [tuple(t.replace("{}", words) for t in templates(options.prompts)) for words in words_C],
    ]
    # where none of the three names all classes, the error is about the one with the fewest missing texts
    texts_CT = min(ways, key=lambda way: sum(text not in outputs.column_of for texts in way for text in texts))
    encoder = ScoresEncoder(outputs, data.views)
    texts = encoder.texts([text for texts in texts_CT for text in texts], frozenset())
    scores_NM = encoder.similarity(encoder.images(data.views, frozenset()), texts)[0].numpy()
    with np.errstate(over="ignore"):
        scores_NC = scores_NM.reshape(len(data), len(texts_CT), -1).mean(axis=2)
    if not np.isfinite(scores_NC).all():
        raise UserError(f"The means of scores over prompts in {outputs.where} overflow: give smaller scores.")
    outcome = _outcome(scores_NC, data, options)
    return replace(outcome, notes=(*outcome.notes, *encoder.notes()))


OUTPUTS = {"similarity": score}


def _outcome(scores_NC: Float[ndarray, "N C"], data: DataSplit, options: Options) -> Outcome:
    words_C = class_words(options.classes, data.classes)
    label_N = labels(data)
    shown = [k for k in options.top_k if k < len(data.classes)]
    ranks = ClassRanks.of(scores_NC, label_N)
    credit = {k: ranks.credit(k) for k in shown}
    first_N = ranks.credit(1)
    clusters = np.arange(len(data))
    metrics: dict[str, Statistic] = {f"top{k}": Mean.of(credit_N) for k, credit_N in credit.items()}
    metrics["mean_per_class"] = ClassMean.of(first_N, label_N, clusters, len(data), len(data.classes))
    undecided_N = np.any([(credit_N > 0) & (credit_N < 1) for credit_N in (first_N, *credit.values())], axis=0)
    left_out = [k for k in options.top_k if k not in shown]
    notes = [f"top{k} is left out: there are only {len(data.classes)} classes." for k in left_out]
    duplicates = len(words_C) - len(set(words_C))
    if duplicates:
        notes.append(f"{duplicates} class words repeat an earlier class's and always tie with it.")
    return Outcome(
        metrics=metrics,
        groups={"class": _by_class(first_N, label_N, data.classes)},
        examples={"correct": first_N, "predicted": scores_NC.argmax(axis=1), "label": label_N},
        ties=int(undecided_N.sum()),
        counts={"images": len(data), "classes": len(data.classes), "prompts": len(templates(options.prompts))},
        reference_rows={"constant": constant_reference(label_N, shown)},
        notes=tuple(notes),
    )


def labels(data: DataSplit) -> Int[ndarray, "N"]:
    """Labels of all examples."""
    found = [example.label for example in data.examples if example.label is not None]
    if len(found) != len(data):
        raise RuntimeError(f"{len(data) - len(found)} examples of {data.dataset}:{data.split} have no label")
    return np.array(found, dtype=np.int64)


def class_scores(encoder: Encoder, data: DataSplit, classes: PromptedClasses) -> Float[ndarray, "N C"]:
    """Image-to-text scores of all images with all classes."""

    def chunk(images: ImageFeatures) -> ndarray:
        def score(texts: TextFeatures) -> Tensor:
            return encoder.similarity(images, texts)[0]

        return in_own_precision(classes.scores(score))

    scores_NC = np.empty((len(data), 0))
    for rows, images in image_batches(encoder, data.views):
        scores = chunk(images)
        if not scores_NC.size:
            scores_NC = np.empty((len(data), scores.shape[1]), dtype=scores.dtype)
        scores_NC[rows] = scores
    return scores_NC


def constant_reference(label_N: Int[ndarray, "N"], top_k: list[int]) -> dict[str, float]:
    """Reference row `constant`: always the k most frequent classes; mean per class 1 / (number of classes present)."""
    frequency = np.sort(np.bincount(label_N))[::-1] / len(label_N)
    reference = {f"top{k}": float(frequency[:k].sum()) for k in top_k}
    reference["mean_per_class"] = 1 / int((frequency > 0).sum())
    return reference


def _by_class(credit_N: ndarray, label_N: ndarray, classes: tuple[str, ...]) -> dict[str, Statistic]:
    means = SparseMean.of_groups(credit_N, label_N, np.arange(len(label_N)), len(label_N), len(classes))
    return {name: mean for name, mean in zip(classes, means, strict=True) if len(mean.cluster_O)}
