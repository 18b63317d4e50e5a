"""CHAIR: hallucinated objects in the top-1 caption of an image.

Shapes: N images, U distinct candidate captions, O objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.facets import Objects
from sparc_bench.metrics.object_mentions import ObjectMentions
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.outputs.captions import Captions
from sparc_bench.outputs.scores_encoder import similarity_predictions
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._similarity_scores import DistinctTexts
from sparc_bench.protocols._top1_captions import (
    Choices,
    candidate_texts,
    given_block,
    given_captions,
    own_candidates,
    pool_strings,
    retrieved_captions,
    top1_captions,
)

VERSION = 2
TITLE = "CHAIR: hallucinated objects in the caption that an image gets"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions", "objects", "synonyms"})
_QUANTITIES = ("mentioned", "wrong", "any_wrong", "named")
"""Per caption and image: mentions of objects, mentions of absent objects (and whether any), annotated objects named."""


class Options(Strict):
    """Options of the protocol in a task card."""

    objects: Literal["instances_and_captions", "instances"]
    """objects that count as present: an image's annotated objects and those that its own captions mention (the
    official rule), or the annotated ones alone"""
    ties: Literal["expected"]
    """expected: the mean over the candidates with the top score"""


class _CandidateMentions:
    """Mentions of objects in each of the U candidate captions."""

    def __init__(self, texts: Sequence[str], mentions: ObjectMentions, classes: Sequence[str]) -> None:
        place = {label: index for index, label in enumerate(classes)}
        self.mentions_UO = np.zeros((len(texts), len(classes)))
        for row, text in enumerate(texts):
            for label in mentions.of(text):
                if label in place:
                    self.mentions_UO[row, place[label]] += 1

    def quantities(
        self, has_NO: Bool[ndarray, "N O"], annotated_NO: Bool[ndarray, "N O"]
    ) -> dict[str, Float[ndarray, "N U"]]:
        """`_QUANTITIES` of every candidate on every image."""
        wrong_NU = (~has_NO).astype(np.float64) @ self.mentions_UO.T
        return {
            "mentioned": np.broadcast_to(self.mentions_UO.sum(axis=1), wrong_NU.shape),
            "wrong": wrong_NU,
            "any_wrong": (wrong_NU > 0).astype(np.float64),
            "named": annotated_NO.astype(np.float64) @ (self.mentions_UO > 0).T,
        }


class _ChairSums:
    """Expected `_QUANTITIES` of each image's caption, and its weight: below 1 where some candidates are left out."""

    def __init__(self, annotated_N: Float[ndarray, "N"]) -> None:
        self.of = {name: np.zeros(len(annotated_N)) for name in _QUANTITIES}
        self.weight_N = np.zeros(len(annotated_N))
        self._annotated_N = annotated_N

    def add(
        self, rows: slice, quantities: Mapping[str, Float[ndarray, "N U"]], weight_NU: Float[ndarray, "N U"]
    ) -> None:
        """Add a batch of images; `weight_NU` is the probability that a candidate is the image's caption."""
        for name, value_NU in quantities.items():
            self.of[name][rows] = (weight_NU * value_NU).sum(axis=1)
        self.weight_N[rows] = weight_NU.sum(axis=1)

    def metrics(self) -> dict[str, Mean]:
        """Metrics over the images, named as in `score`."""
        mentioned_N, wrong_N, any_wrong_N, named_N = (self.of[name] for name in _QUANTITIES)
        return {
            "faithful_objects": Mean(mentioned_N - wrong_N, mentioned_N),
            "faithful_captions": Mean(self.weight_N - any_wrong_N, self.weight_N),
            "coverage": Mean(named_N, self.weight_N * self._annotated_N),
        }


class _ConstantCaption:
    """Reference row `constant`: the best caption on one half of the images, scored on the other half, both ways."""

    def __init__(self, pool_U: Bool[ndarray, "U"]) -> None:
        self._pool_U = pool_U
        self._sums_2U = {name: np.zeros((2, len(pool_U))) for name in ("mentioned", "wrong", "any_wrong", "images")}

    def add(self, rows: slice, quantities: Mapping[str, Float[ndarray, "N U"]]) -> None:
        """Add a batch of images; even and odd positions are the two halves."""
        half_N = np.arange(rows.start, rows.stop) % 2
        for half in (0, 1):
            for name, sums_2U in self._sums_2U.items():
                chosen_N = half_N == half
                sums_2U[half] += quantities[name][chosen_N].sum(axis=0) if name in quantities else chosen_N.sum()

    def row(self) -> dict[str, float]:
        """Both metrics of one caption for all images."""
        found: dict[str, float] = {}
        for name, part, whole in (("objects", "wrong", "mentioned"), ("captions", "any_wrong", "images")):
            part_2U, whole_2U = self._sums_2U[part], self._sums_2U[whole]
            share_2U = np.divide(part_2U, whole_2U, out=np.full_like(part_2U, np.inf), where=whole_2U > 0)
            best = [int(np.where(self._pool_U, share_2U[half], np.inf).argmin()) for half in (1, 0)]
            total = sum(whole_2U[half, best[half]] for half in (0, 1))
            lost = sum(part_2U[half, best[half]] for half in (0, 1)) / total if total else float("nan")
            found[f"faithful_{name}"] = float(1 - lost)
        return found


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:  # noqa: ARG001 - the seam
    """The candidates at the top of each image: `example`, `candidate`."""
    return retrieved_captions(encoder, work, DistinctTexts.of(_pool(work.data)))


def by_captions(outputs: Captions, data: Examples, options: Options) -> Predictions:  # noqa: ARG001 - the seam
    """Another system's captions of the images, from the pool or generated."""
    given_N, notes = given_captions(outputs, data)
    return Predictions((given_block(given_N, _pool(data)),), notes=notes)


OUTPUTS = {"captions": by_captions, "similarity": similarity_predictions(predict)}


def _pool(data: Examples) -> tuple[str, ...]:
    return (*data.captions, *data.pool)


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Count the objects in the top-1 caption of each image that the image lacks.

    `faithful_objects` is 1 - CHAIR_i, the share of all mentions of objects that are right; `faithful_captions` is
    1 - CHAIR_s, the share of captions without a hallucinated object. Both are higher for better models; a note gives
    CHAIR_i and CHAIR_s. A caption without objects raises faithful_captions, but not `coverage`, the share of the
    annotated objects that the captions name. The `_misses` variants are over images whose caption is not one of their
    own (an own caption never hallucinates under the official rule); `r1` is the share of the other images. Where
    candidates tie for the top, every quantity is its mean over them.

    Reference rows: `constant` (for each of the two metrics the best caption on half of the images, scored on the other
    half), `random_caption` (the exact mean over all candidates), `human` (each own caption, judged by the image's
    annotations and other captions). The tie count is the number of images with several candidates at the top;
    `retrieved` is the first of them, as an index into the split's captions followed by its pool.
    """
    pool = _pool(data)
    candidates = candidate_texts(predictions, pool)
    pool_U = pool_strings(candidates, len(pool))
    mentions = _CandidateMentions(candidates.texts, ObjectMentions(data.synonyms), data.classes)
    annotated_NO = _annotated(data)
    images, objects_N = len(data), annotated_NO.sum(axis=1).astype(np.float64)
    sums = {name: _ChairSums(objects_N) for name in ("all", "misses", "random", "random_misses")}
    constant = _ConstantCaption(pool_U)
    choices = Choices(images)
    right_NO, mentioned_NO = np.zeros(annotated_NO.shape), np.zeros(annotated_NO.shape)
    for rows, top_NU in top1_captions(predictions, images, len(candidates.texts)):
        own_NU = own_candidates(data, rows, candidates)
        has_NO = annotated_NO[rows]
        if options.objects == "instances_and_captions":
            has_NO = has_NO | (own_NU.astype(np.float64) @ mentions.mentions_UO > 0)
        choice_NU = choices.add(rows, top_NU, own_NU)
        even_NU = np.broadcast_to(pool_U / pool_U.sum(), choice_NU.shape)
        here = mentions.quantities(has_NO, annotated_NO[rows])
        for name, weight_NU in (("all", choice_NU), ("random", even_NU)):
            sums[name].add(rows, here, weight_NU)
            sums["misses" if name == "all" else f"{name}_misses"].add(rows, here, weight_NU * ~own_NU)
        constant.add(rows, here)
        mentioned_NO[rows] = choice_NU @ mentions.mentions_UO
        right_NO[rows] = mentioned_NO[rows] * has_NO
    metrics: dict[str, Statistic] = {**_with_misses(sums["all"], sums["misses"]), "r1": Mean.of(choices.hit_N)}
    random = _with_misses(sums["random"], sums["random_misses"])
    everything = sums["all"].of
    return Outcome(
        metrics=metrics,
        groups={
            "object": {
                label: Mean(right_NO[:, column], mentioned_NO[:, column])
                for column, label in enumerate(data.classes)
                if mentioned_NO[:, column].any()
            }
        },
        examples={
            "correct": 1 - everything["any_wrong"],
            "mentioned": everything["mentioned"].astype(np.float32),
            "hallucinated": everything["wrong"].astype(np.float32),
            "retrieved": choices.retrieved_N(candidates),
        },
        ties=choices.ties,
        counts={
            "images": images,
            "captions": len(data.captions),
            "candidates": int(pool_U.sum()),
            "mentions": round(float(everything["mentioned"].sum())),
            "hallucinated": round(float(everything["wrong"].sum())),
            "misses": choices.misses,
        },
        reference_rows={
            "constant": constant.row(),
            "random_caption": {name: statistic.value for name, statistic in random.items()},
            "human": human_reference(data, options),
        },
        notes=(
            f"CHAIR_i {_percent(metrics['faithful_objects'])}, CHAIR_s {_percent(metrics['faithful_captions'])}: what "
            "faithful_objects and faithful_captions leave of 1, better when lower.",
            "The constant caption is the best on half of these images, scored on the other half, and the reverse; for "
            "faithful_captions it is one that names no object.",
            "The human row knows an image's objects without the caption that is judged.",
        ),
    )


def _annotated(data: Examples) -> Bool[ndarray, "N O"]:
    """Which classes are annotated in which image."""
    present = (example.facet(Objects).present for example in data)
    return np.array([[of.get(label, False) for label in data.classes] for of in present])


def human_reference(data: Examples, options: Options) -> dict[str, float]:
    """Reference row `human`: each own caption against the annotations and the other captions, mean within an image."""
    captions = DistinctTexts.of(data.captions)
    mentions = _CandidateMentions(captions.texts, ObjectMentions(data.synonyms), data.classes)
    annotated_NO = _annotated(data)
    sums = _ChairSums(annotated_NO.sum(axis=1).astype(np.float64))
    start = 0
    for row, example in enumerate(data.examples):
        mentions_KO = mentions.mentions_UO[captions.index_M[start : start + len(example.captions)]]
        start += len(example.captions)
        has_KO = annotated_NO[[row] * len(mentions_KO)]
        if options.objects == "instances_and_captions":
            has_KO = has_KO | ((mentions_KO > 0).sum(axis=0) - (mentions_KO > 0) > 0)
        wrong_K = (mentions_KO * ~has_KO).sum(axis=1)
        values = {
            "mentioned": mentions_KO.sum(axis=1),
            "wrong": wrong_K,
            "any_wrong": wrong_K > 0,
            "named": ((mentions_KO > 0) & annotated_NO[row]).sum(axis=1),
        }
        weight_K = np.full((1, len(mentions_KO)), 1 / len(mentions_KO))
        sums.add(
            slice(row, row + 1), {name: value[None].astype(np.float64) for name, value in values.items()}, weight_K
        )
    return {name: statistic.value for name, statistic in sums.metrics().items()}


def _with_misses(everything: _ChairSums, misses: _ChairSums) -> dict[str, Mean]:
    found, on_misses = everything.metrics(), misses.metrics()
    return found | {f"{name}_misses": on_misses[name] for name in ("faithful_objects", "faithful_captions")}


def _percent(faithful: Statistic) -> str:
    return "-" if np.isnan(faithful.value) else f"{100 * (1 - faithful.value):.1f} %"
