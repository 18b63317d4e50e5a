"""Zero-shot classification under corruptions: mean top-1, and mean corruption error (mCE) relative to a baseline.

Shapes: N photos, K corruptions, S severities, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from sparc_bench.cards.bounds import Number, Share
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, image_need
from sparc_bench.errors import UserError
from sparc_bench.facets import Corruptions
from sparc_bench.images.view import View
from sparc_bench.metrics.influence import Influence
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.metrics.topk import topk_score
from sparc_bench.protocol import Block, Outcome, Part, Predictions, Work
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols.classification import constant_reference, labels, scores_of_classes

VERSION = 1
TITLE = "zero-shot classification of corrupted photos: mean top-1 and mCE"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"labels", "corruptions"})


class Options(Strict):
    """Options of the protocol in a task card."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """class names in the prompts: a class list (`imagenet` or a card of tasks/classes), or `own`: the data set's"""
    severities: tuple[Number, ...]
    """severities of each corruption, equally weighted"""
    baseline_error: dict[str, Share] = Field(min_length=1)
    """corruption -> top-1 error of mCE's baseline model (AlexNet), averaged over the severities, above 0"""
    ties: Literal["expected"]
    """expected: the mean credit over random orders of the tied classes; duplicate class names tie"""


@dataclass(frozen=True)
class CorruptionError(Statistic):
    """Mean corruption error, mCE (Hendrycks and Dietterich 2019, section 4.1); lower is better.

    For each corruption the error averaged over severities is divided by the baseline's; the mean over corruptions is
    above 1 for a model worse than the baseline.

    Attributes:
        error_GK: mean error over severities of each photo under each corruption.
        baseline_K: the same of the baseline model, over all photos.
    """

    kind: ClassVar[str] = "corruption_error"
    less_is_better: ClassVar[bool] = True
    error_GK: Float[ndarray, "G K"]
    baseline_K: Float[ndarray, "K"]

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """MCE under photo weights; a photo under all its corruptions is one cluster."""
        values_S: ndarray = weights_SG @ self._relative_G / weights_SG.sum(axis=1)
        return values_S

    @property
    def _relative_G(self) -> Float[ndarray, "G"]:
        relative_G: ndarray = (self.error_GK / self.baseline_K).mean(axis=1)
        return relative_G

    def influence(self) -> Influence:
        """Influence of each photo: that on a mean."""
        return Mean.of(self._relative_G).influence()

    @property
    def most(self) -> float:
        """MCE of a model that is always wrong."""
        return float((1 / self.baseline_K).mean())


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Top-1 credit (N, K, S) of every photo under every corruption and severity.

    Raises:
        UserError: the corruptions of the data are not those of the card's baseline.
    """
    corruptions = list(options.baseline_error)
    data = work.data
    if data.sizes.get("corruptions", len(corruptions)) != len(corruptions):
        raise UserError(
            f"The card has the baseline's error for {len(corruptions)} corruptions and {data.dataset}:{data.split} has "
            f"{data.sizes['corruptions']}: name those of this split in baseline_error."
        )
    classes = PromptedClasses(encoder, class_words(options.classes, data.classes), templates(options.prompts))
    versions = [(corruption, severity) for corruption in corruptions for severity in options.severities]

    def views(part: Part) -> list[View]:
        return [View(example.facet(Corruptions).version(*version)) for version in versions for example in part.examples]

    for part, batches in work.views(encoder, image_need(encoder), views):
        label_N = labels(part.examples)
        credit = np.empty(len(versions) * len(label_N), dtype=np.float32)
        done = 0
        for images in batches:
            here = slice(done, done + len(images))
            scores_nC = scores_of_classes(encoder, images, classes)
            credit[here] = topk_score(scores_nC, np.tile(label_N, len(versions))[here], 1)
            done += len(images)
        credit_KSN = credit.reshape(len(corruptions), len(options.severities), len(label_N))
        yield part.block(credit=np.moveaxis(credit_KSN, -1, 0))


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every photo under every corruption and severity against all classes.

    `top1` is the mean credit over corruptions, severities and photos (SPARC's number for ImageNet-C), `mce` the mean
    corruption error (lower is better). The tie count is the number of corrupted images whose credit is neither 0 nor 1.
    """
    words_C = class_words(options.classes, data.classes)
    duplicates = len(words_C) - len(set(words_C))
    credit_KSN = np.ascontiguousarray(np.moveaxis(predictions.by_example("credit", len(data)), 0, -1))
    corruptions, severities = list(options.baseline_error), options.severities
    baseline_K = np.array(list(options.baseline_error.values()), dtype=np.float64)
    if (baseline_K <= 0).any():
        raise UserError("A baseline's error of 0 or less has nothing relative to it: mend baseline_error.")
    sets = len(corruptions) * len(severities)
    count_N = np.full(len(data), float(sets))
    of_corruption_KN = credit_KSN.sum(axis=1, dtype=np.float64)
    constant = constant_reference(labels(data.examples), [1])["top1"]
    return Outcome(
        metrics={
            "top1": Mean(of_corruption_KN.sum(axis=0), count_N),
            "mce": CorruptionError(1 - of_corruption_KN.T / len(severities), baseline_K),
        },
        groups={
            "corruption": {
                name: Mean(of_corruption_KN[k], np.full(len(data), float(len(severities))))
                for k, name in enumerate(corruptions)
            },
            "corruption and severity": {
                f"{name}/{severity}": Mean.of(credit_KSN[k, s])
                for k, name in enumerate(corruptions)
                for s, severity in enumerate(severities)
            },
        },
        examples={"correct": of_corruption_KN.sum(axis=0) / sets, "label": labels(data.examples)},
        ties=int(((credit_KSN > 0) & (credit_KSN < 1)).sum()),
        counts={
            "photos": len(data),
            "images": sets * len(data),
            "corruptions": len(corruptions),
            "classes": len(data.classes),
            "prompts": len(templates(options.prompts)),
        },
        reference_rows={"constant": {"top1": constant, "mce": float(((1 - constant) / baseline_K).mean())}},
        notes=(f"{duplicates} class words repeat an earlier class's and always tie with it.",) if duplicates else (),
    )
