"""Zero-shot classification: an image is assigned to the class whose prompts score highest with it.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder, image_need
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.metrics.statistic import ClassMean, Mean, SparseMean, Statistic
from sparc_bench.metrics.topk import ClassRanks
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Block, Outcome, Part, Predictions, Work
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols._similarity_scores import bounded, in_own_precision

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


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Place of each image's class among all classes (`above`, `tied`), and the class with the highest score."""
    words_C = class_words(options.classes, work.data.classes)
    classes = PromptedClasses(encoder, words_C, templates(options.prompts))
    for part, scores_NC in class_scores(encoder, work, classes):
        yield _block(part, scores_NC)


def by_similarity(outputs: Similarity, data: Examples, options: Options) -> Predictions:
    """Predictions of a similarity matrix of images and classes.

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
    blocks = []
    for part, images in Work.whole(data).images(encoder, frozenset()):
        scores_NM = encoder.similarity(images, texts)[0].numpy()
        with np.errstate(over="ignore"):
            scores_NC = scores_NM.reshape(len(images), len(texts_CT), -1).mean(axis=2)
        if not np.isfinite(scores_NC).all():
            raise UserError(f"The means of scores over prompts in {outputs.where} overflow: give smaller scores.")
        blocks.append(_block(part, scores_NC))
    return Predictions(blocks, notes=encoder.notes)


OUTPUTS = {"similarity": by_similarity}


def _block(part: Part, scores_NC: Float[ndarray, "N C"]) -> Block:
    ranks = ClassRanks.of(scores_NC, labels(part.examples))
    return part.block(above=ranks.above_N, tied=ranks.tied_N, predicted=scores_NC.argmax(axis=1))


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every labelled image against all classes.

    `top<k>` is the mean credit over images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without images are left out). The tie count is the number of images whose credit at some k is
    neither 0 nor 1. `predicted` is the class with the highest score, the lowest index on ties.
    """
    words_C = class_words(options.classes, data.classes)
    label_N = labels(data.examples)
    shown = [k for k in options.top_k if k < len(data.classes)]
    ranks = ClassRanks(*(predictions.by_example(name, len(data)) for name in ("above", "tied")))
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
        examples={"correct": first_N, "predicted": predictions.by_example("predicted", len(data)), "label": label_N},
        ties=int(undecided_N.sum()),
        counts={"images": len(data), "classes": len(data.classes), "prompts": len(templates(options.prompts))},
        reference_rows={"constant": constant_reference(label_N, shown)},
        notes=tuple(notes),
    )


def labels(examples: Iterable[Example]) -> Int[ndarray, "N"]:
    """Labels of examples that all have one."""
    found = []
    for example in examples:
        if example.label is None:
            raise RuntimeError(f"the example {example.id} has no label")
        found.append(example.label)
    return np.array(found, dtype=np.int64)


def class_scores(
    encoder: Encoder, work: Work, classes: PromptedClasses
) -> Iterator[tuple[Part, Float[ndarray, "N C"]]]:
    """Each part with the image-to-text scores of its images with all classes."""
    for part, images in work.images(encoder, image_need(encoder)):
        yield part, scores_of_classes(encoder, images, classes)


def scores_of_classes(encoder: Encoder, images: ImageFeatures, classes: PromptedClasses) -> Float[ndarray, "N C"]:
    """Image-to-text scores of images with all classes."""
    parts = []
    for some in bounded(encoder, images):

        def score(texts: TextFeatures, some: ImageFeatures = some) -> Tensor:
            return encoder.similarity(some, texts)[0]

        parts.append(in_own_precision(classes.scores(score)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def constant_reference(label_N: Int[ndarray, "N"], top_k: list[int]) -> dict[str, float]:
    """Reference row `constant`: always the k most frequent classes; mean per class 1 / (number of classes present)."""
    frequency = np.sort(np.bincount(label_N))[::-1] / len(label_N)
    reference = {f"top{k}": float(frequency[:k].sum()) for k in top_k}
    reference["mean_per_class"] = 1 / int((frequency > 0).sum())
    return reference


def _by_class(credit_N: ndarray, label_N: ndarray, classes: tuple[str, ...]) -> dict[str, Statistic]:
    means = SparseMean.of_groups(credit_N, label_N, np.arange(len(label_N)), len(label_N), len(classes))
    return {name: mean for name, mean in zip(classes, means, strict=True) if len(mean.cluster_O)}
