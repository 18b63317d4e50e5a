"""Object presence (POPE for encoders): the score of an image with "a photo of a {x}" answers whether x is in it.

A question is the object's prompt without a negation, which encoders do not read; its answer is the score.

Shapes: N images, C objects, Q questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import Field

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.facets import Objects
from sparc_bench.metrics.presence import Auroc, ObjectAP, best_f1_threshold, tied_questions
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.outputs.scores_encoder import similarity_predictions
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols.classification import class_scores

VERSION = 1
TITLE = "object presence: AUROC, mean AP by object, F1 at a threshold set on other images"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"objects"})


class Options(Strict):
    """Options of the protocol in a task card."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """object names in the prompts: a card of tasks/classes, or `own`: the data set's own names"""
    folds: Number = Field(ge=2)
    """number of folds of the images; a fold is answered at the threshold with the best F1 on the other folds"""


@dataclass(frozen=True)
class _Questions:
    """Questions of a split, image by image.

    Attributes:
        image_Q: index of each question's image.
        object_Q: class index of the object in question.
        yes_Q: True where the object is in the image.
        fold_Q: fold of each question's image.
    """

    image_Q: Int[ndarray, "Q"]
    object_Q: Int[ndarray, "Q"]
    yes_Q: Bool[ndarray, "Q"]
    fold_Q: Int[ndarray, "Q"]

    @classmethod
    def of(cls, data: Examples, folds: int) -> _Questions:
        """Questions of each example's `Objects`; raises UserError for fewer images than folds."""
        if len(data) < folds:
            raise UserError(f"{len(data)} images do not fall into {folds} parts: take more images, or fewer folds.")
        place = {name: index for index, name in enumerate(data.classes)}
        rows = [
            (n, place[name], answer)
            for n, example in enumerate(data.examples)
            for name, answer in example.facet(Objects).present.items()
        ]
        image_Q, object_Q, yes_Q = (np.array(column) for column in zip(*rows, strict=True))
        fold_N = image_folds([example.id for example in data.examples], folds)
        return cls(image_Q, object_Q, yes_Q, fold_N[image_Q])

    @property
    def both_C(self) -> list[int]:
        """Objects with questions of both answers."""
        return sorted({*self.object_Q[self.yes_Q].tolist()} & {*self.object_Q[~self.yes_Q].tolist()})


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Score of every question: its image with its object's prompt."""
    words_C = class_words(options.classes, work.data.classes)
    classes = PromptedClasses(encoder, words_C, templates(options.prompts))
    place = {name: index for index, name in enumerate(work.data.classes)}
    for part, scores_NC in class_scores(encoder, work, classes):
        asked = [(n, place[name]) for n, example in enumerate(part.examples) for name in example.facet(Objects).present]
        row_Q, object_Q = np.array(asked, dtype=np.int64).reshape(-1, 2).T
        yield part.block(score=scores_NC[row_Q, object_Q])


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Rank the questions by their scores, and answer them.

    `auroc` is over all pairs of a yes and a no question, of any images and objects; a tie counts half. `map` is the
    mean over objects of the average precision over the object's questions (objects whose questions have one answer
    alone are left out; `objects_both` counts the others). For `f1`, `precision`, `recall`, `accuracy` and `yes_rate`
    (all of "yes", as POPE reports them) an answer is "yes" at or above a threshold: the one with the best F1 on the
    other folds. Folds depend on the image ids alone.

    Equal scores for all questions give auroc .5 and "yes" everywhere. The reference row `blind` sees no image: an
    object's score is its share of yes among the questions of the other folds. The tie count is the number of questions
    whose score equals that of a question with the other answer.
    """
    asked = _Questions.of(data, options.folds)
    given_Q = predictions.joined("score")
    score_Q = given_Q.astype(np.float64)
    metrics, said_Q = _metrics(score_Q, asked, len(data))
    blind, _ = _metrics(_blind_scores(asked, len(data.classes)), asked, len(data))
    counts_N = np.bincount(asked.image_Q, minlength=len(data))
    right_N = np.bincount(asked.image_Q, said_Q == asked.yes_Q, minlength=len(data))
    ranked = Auroc.of(score_Q, asked.image_Q, asked.object_Q, asked.yes_Q, len(data))
    return Outcome(
        metrics=metrics,
        groups={"object": _by_object(score_Q, asked, data)},
        examples={"correct": right_N / np.maximum(counts_N, 1)},
        rows={"score": given_Q, "object": asked.object_Q, "yes": asked.yes_Q.astype(np.uint8)},
        ties=tied_questions(ranked.level_Q, asked.yes_Q),
        counts={
            "images": len(data),
            "questions": len(score_Q),
            "yes": int(asked.yes_Q.sum()),
            "objects": len(np.unique(asked.object_Q)),
            "objects_both": len(asked.both_C),
        },
        reference_rows={"blind": {name: statistic.value for name, statistic in blind.items()}},
        notes=(
            f"map is over {len(asked.both_C)} of {len(np.unique(asked.object_Q))} objects, those asked about with "
            "either answer.",
            f"Thresholds are set on {options.folds - 1} of {options.folds} parts of the images for the remaining one.",
            "The blind row sees no image: an object's score is its share of yes among the questions of other images.",
        ),
    )


OUTPUTS = {"similarity": similarity_predictions(predict)}


def image_folds(ids: Sequence[str], folds: int) -> Int[ndarray, "N"]:
    """Fold of each image, dealt in turn in the order of the ids' sha256: independent of the order of the split.

    >>> image_folds(["1", "2", "3", "4"], 2).tolist()
    [0, 1, 1, 0]
    """
    order_N = sorted(range(len(ids)), key=lambda index: hashlib.sha256(ids[index].encode()).hexdigest())
    fold_N = np.empty(len(ids), dtype=np.int64)
    fold_N[order_N] = np.arange(len(ids)) % folds
    return fold_N


def _metrics(
    score_Q: Float[ndarray, "Q"], asked: _Questions, images: int
) -> tuple[dict[str, Statistic], Bool[ndarray, "Q"]]:
    """(metrics of the scores, mask of the questions answered with yes)."""
    said_Q = np.zeros(len(score_Q), dtype=bool)
    for fold in np.unique(asked.fold_Q):
        here_Q = asked.fold_Q == fold
        said_Q[here_Q] = score_Q[here_Q] >= best_f1_threshold(score_Q[~here_Q], asked.yes_Q[~here_Q])

    def of_images(chosen_Q: ndarray) -> ndarray:
        return np.bincount(asked.image_Q, chosen_Q, minlength=images)

    found_N, said_N, there_N = of_images(said_Q & asked.yes_Q), of_images(said_Q), of_images(asked.yes_Q)
    asked_N = of_images(np.ones(len(score_Q)))
    ranked = (score_Q, asked.image_Q, asked.object_Q, asked.yes_Q, images)
    metrics: dict[str, Statistic] = {
        "auroc": Auroc.of(*ranked),
        "map": ObjectAP.of(*ranked),
        "f1": Mean(2 * found_N, said_N + there_N),
        "precision": Mean(found_N, said_N),
        "recall": Mean(found_N, there_N),
        "accuracy": Mean(of_images(said_Q == asked.yes_Q), asked_N),
        "yes_rate": Mean(said_N, asked_N),
    }
    return metrics, said_Q


def _blind_scores(asked: _Questions, objects: int) -> Float[ndarray, "Q"]:
    """Share of yes among the object's questions in the other folds; among all questions there for an object without."""
    score_Q = np.empty(len(asked.yes_Q))
    for fold in np.unique(asked.fold_Q):
        here_Q = asked.fold_Q == fold
        there_Q, yes_Q = asked.object_Q[~here_Q], asked.yes_Q[~here_Q]
        count_C = np.bincount(there_Q, minlength=objects)
        share_C = np.full(objects, yes_Q.mean())
        np.divide(np.bincount(there_Q, yes_Q, minlength=objects), count_C, out=share_C, where=count_C > 0)
        score_Q[here_Q] = share_C[asked.object_Q[here_Q]]
    return score_Q


def _by_object(score_Q: ndarray, asked: _Questions, data: Examples) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {}
    for label in asked.both_C:
        chosen_Q = asked.object_Q == label
        found[data.classes[label]] = Auroc.of(
            score_Q[chosen_Q], asked.image_Q[chosen_Q], asked.object_Q[chosen_Q], asked.yes_Q[chosen_Q], len(data)
        )
    return found
