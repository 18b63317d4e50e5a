"""Zero-shot classification: an image goes to the class whose prompted name it scores highest with.

Shapes: N images, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.metrics.statistic import ClassMean, Mean, SparseMean, Statistic
from sparc_bench.metrics.topk import Places
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._pairs import image_chunks
from sparc_bench.protocols._prompted_classes import PromptedClasses

VERSION = 1
TITLE = "zero-shot classification: top-k and mean per class"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"labels"})


class Options(Strict):
    """What a card decides."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """class words: a class list (`imagenet` or a card of tasks/classes), or `own` for the data set's own names"""
    top_k: tuple[int, ...]
    """which k; one that reaches the number of classes is left out (it would always score 1), and a note says so"""
    ties: Literal["expected"]
    """expected: the credit of a random order of the tied classes; duplicate class names are such ties"""


def run(encoder: Encoder, data: DataSplit, options: Options) -> Outcome:
    """Score every labelled image against all classes.

    `top<k>` is the mean credit over images, `mean_per_class` the mean over classes of the top-1 credit within the
    class (classes without images are left out). The tie count is the number of images whose credit at some k is
    neither 0 nor 1. `predicted` is the best class, the lowest index where several tie.
    """
    words_C = class_words(options.classes, data.classes)
    return _outcome(
        class_scores(encoder, data, PromptedClasses(encoder, words_C, templates(options.prompts))), data, options
    )


def score(outputs: Similarity, data: DataSplit, options: Options) -> Outcome:
    """The same of a matrix with a column for each class.

    `texts` name the classes: all by the data set's own names, all by the card's words for them, or all by the card's
    prompts, of which a class has the mean of its columns.
    """
    words_C = class_words(options.classes, data.classes)
    ways: list[list[tuple[str, ...]]] = [
        [(name,) for name in data.classes],
        [(words,) for words in words_C],
        [tuple(t.replace("{}", words) for t in templates(options.prompts)) for words in words_C],
    ]
    # where no way names all classes, the sentence is about the one that comes nearest
    texts_CT = min(ways, key=lambda way: sum(text not in outputs.column_of for texts in way for text in texts))
    encoder = ScoresEncoder(outputs, data.items)
    texts = encoder.texts([text for texts in texts_CT for text in texts], frozenset())
    scores_NM = encoder.similarity(encoder.images(data.items, frozenset()), texts)[0].numpy()
    outcome = _outcome(scores_NM.reshape(len(data), len(texts_CT), -1).mean(axis=2), data, options)
    return replace(outcome, notes=(*outcome.notes, *encoder.notes()))


OUTPUTS = {"similarity": score}


def _outcome(scores_NC: Float[ndarray, "N C"], data: DataSplit, options: Options) -> Outcome:
    words_C = class_words(options.classes, data.classes)
    label_N = labels(data)
    shown = [k for k in options.top_k if k < len(data.classes)]
    places = Places.of(scores_NC, label_N)
    credit = {k: places.credit(k) for k in shown}
    first_N = places.credit(1)
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
        reference={"constant": constant_reference(label_N, shown)},
        notes=tuple(notes),
    )


def labels(data: DataSplit) -> Int[ndarray, "N"]:
    """The label of every example."""
    found = [example.label for example in data.examples if example.label is not None]
    if len(found) != len(data):
        raise RuntimeError(f"{len(data) - len(found)} examples of {data.dataset}:{data.split} have no label")
    return np.array(found, dtype=np.int64)


def class_scores(encoder: Encoder, data: DataSplit, classes: PromptedClasses) -> Float[ndarray, "N C"]:
    """Image-to-text scores of all images with all classes, in float32."""

    def chunk(images: ImageFeatures) -> ndarray:
        def score(texts: TextFeatures) -> Tensor:
            return encoder.similarity(images, texts)[0]

        scores: ndarray = classes.scores(score).detach().float().cpu().numpy()
        return scores

    scores_NC = np.empty((len(data), 0), dtype=np.float32)
    for rows, images in image_chunks(encoder, data.items):
        scores = chunk(images)
        if not scores_NC.size:
            scores_NC = np.empty((len(data), scores.shape[1]), dtype=np.float32)
        scores_NC[rows] = scores
    return scores_NC


def constant_reference(label_N: Int[ndarray, "N"], top_k: list[int]) -> dict[str, float]:
    """What always naming the most frequent classes scores: their share of the images, one class of those present."""
    frequency = np.sort(np.bincount(label_N))[::-1] / len(label_N)
    reference = {f"top{k}": float(frequency[:k].sum()) for k in top_k}
    reference["mean_per_class"] = 1 / int((frequency > 0).sum())
    return reference


def _by_class(credit_N: ndarray, label_N: ndarray, classes: tuple[str, ...]) -> dict[str, Statistic]:
    means = SparseMean.of_groups(credit_N, label_N, np.arange(len(label_N)), len(label_N), len(classes))
    return {name: mean for name, mean in zip(classes, means, strict=True) if len(mean.cluster_O)}
