"""Caption choice: an image with true and false captions, right where every true one scores above every false one.

Shapes: I items, T true captions, F false ones, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder, pairwise, text_need
from sparc_bench.errors import UserError, nearest
from sparc_bench.features import TextFeatures, present, unit
from sparc_bench.images.item import Box
from sparc_bench.metrics.caption_choice import caption_choice
from sparc_bench.metrics.pair_comparison import Ties
from sparc_bench.metrics.statistic import ClassMean, Mean, Statistic
from sparc_bench.outputs.scores_encoder import run_on_similarity
from sparc_bench.protocol import Outcome
from sparc_bench.protocols._similarity_scores import DistinctTexts, image_batches, similarity_scores

VERSION = 1
TITLE = "caption choice: every true caption of an image above every false one"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions", "negatives"})

_IMAGES_TOGETHER = 16
"""Images of a pairwise model whose texts are encoded together; each image is scored with the texts of all of them."""


class Options(Strict):
    """Options of the protocol in a task card."""

    ties: Ties
    """lose: a tie is an error (SugarCrepe's strict greater-than); win: it is right (ARO's order tasks); expected: the
    mean credit over random orders"""
    group_by: str
    """tag whose groups the macro mean averages; empty: no macro mean"""
    exclude: tuple[str, ...]
    """groups left out of the macro mean"""
    min_count: Number
    """least number of items of a group in the macro mean"""
    group_metrics: bool
    """whether the accuracy of each group of the macro mean is a metric with the group's name"""
    text_only: bool
    """whether the text-only task is scored too: true captions closer to each other than to a false one, by cosine of
    text vectors (SugarCrepe++)"""


@dataclass(frozen=True)
class _Scores:
    """Scores of every item, padded with +inf (true) and -inf (false) as `metrics.caption_choice` says.

    Attributes:
        true_IT: image-to-text scores of the true captions.
        false_IF: image-to-text scores of the false captions.
        text_true_IT: cosines of all pairs of true captions, or None without the text-only task.
        text_false_IF: cosines of every true with every false caption, or None.
    """

    true_IT: Float[ndarray, "I T"]
    false_IF: Float[ndarray, "I F"]
    text_true_IT: Float[ndarray, "I T"] | None = None
    text_false_IF: Float[ndarray, "I F"] | None = None


def run(encoder: Encoder, data: DataSplit, options: Options) -> Outcome:
    """Score every item: `accuracy` over all items, `macro_accuracy` over the groups of `options.group_by`.

    Metrics of the text-only task begin with `text_only_`; `groups` are of the image-to-text task. The interval
    is over photos: the credits of a photo's items belong to the cluster of its first item. `correct` is the
    credit of each item. The tie count is the number of items decided by a tie (with `text_only`, in both tasks).
    """
    _refuse_other_shapes(data, options)
    items = len(data)
    scores = _scores(encoder, data, options.text_only)
    first_I = _first_of_photo(data)
    credit_I, tied_I = caption_choice(scores.true_IT, scores.false_IF, options.ties)
    kept = _kept_groups(data, options)

    def by_group(credit_I: ndarray) -> dict[str, Statistic]:
        return {name: Mean.of(credit_I[index_J], first_I[index_J], items) for name, index_J in kept.items()}

    def accuracies(credit_I: ndarray, prefix: str) -> dict[str, Statistic]:
        found: dict[str, Statistic] = {}
        if kept:
            found["macro_accuracy"] = _macro(credit_I, kept, first_I)
        found["accuracy"] = Mean.of(credit_I, first_I, items)
        found |= by_group(credit_I) if options.group_metrics else {}
        return {f"{prefix}{name}": statistic for name, statistic in found.items()}

    metrics = accuracies(credit_I, "")
    examples = {"correct": credit_I}
    ties, notes = int(tied_I.sum()), [*_left_out(data, options, kept)]
    if scores.text_true_IT is not None and scores.text_false_IF is not None:
        examples["text_only_correct"], text_tied_I = caption_choice(
            scores.text_true_IT, scores.text_false_IF, options.ties
        )
        metrics |= accuracies(examples["text_only_correct"], "text_only_")
        ties += int(text_tied_I.sum())
    elif options.text_only:
        notes.append("The text-only task is left out: there are no text vectors to compare.")
    images = {(example.image.id, example.window) for example in data}
    return Outcome(
        metrics=metrics,
        groups={options.group_by: by_group(credit_I)} if kept else {},
        examples=examples,
        ties=ties,
        counts={"images": len(images), "items": items},
        notes=tuple(notes),
    )


OUTPUTS = {"similarity": run_on_similarity(run)}


def _refuse_other_shapes(data: DataSplit, options: Options) -> None:
    for example in data:
        if not example.captions or not example.negatives:
            raise UserError(
                f"Example '{example.id}' has {len(example.captions)} captions and {len(example.negatives)} negatives: "
                "caption choice needs one of each at least; choose such data in the card's [data]."
            )
        if options.group_by and options.group_by not in example.tags:
            raise UserError(f"No tag '{options.group_by}' to group by: {nearest(options.group_by, example.tags)}")
        if options.text_only and len(example.captions) < 2:
            raise UserError(f"Example '{example.id}' has one true caption: set text_only = false.")


def _first_of_photo(data: DataSplit) -> ndarray:
    """Index of the first item about the same photo, for every item."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(example.image.id, index) for index, example in enumerate(data)])


def _kept_groups(data: DataSplit, options: Options) -> dict[str, ndarray]:
    """Groups of the macro mean, sorted by name -> indices of their items."""
    if not options.group_by:
        return {}
    members: dict[str, list[int]] = {}
    for index, example in enumerate(data):
        members.setdefault(example.tags[options.group_by], []).append(index)
    kept = {
        name: np.array(of)
        for name, of in sorted(members.items())
        if len(of) >= options.min_count and name not in options.exclude
    }
    if not kept:
        raise UserError(
            f"No group of '{options.group_by}' has {options.min_count} items and is not excluded: read more of the "
            "data, or change min_count or exclude in the card's [options]."
        )
    return kept


def _left_out(data: DataSplit, options: Options, kept: dict[str, ndarray]) -> Iterator[str]:
    """Note on the groups left out of the macro mean, if any."""
    groups = {example.tags[options.group_by] for example in data} if options.group_by else set()
    if len(groups) > len(kept):
        items = len(data) - sum(map(len, kept.values()))
        yield (
            f"The macro mean is over {len(kept)} of {len(groups)} groups of '{options.group_by}', without {items} of "
            f"{len(data)} items (excluded, or under {options.min_count} items); accuracy is over all items."
        )


def _macro(credit_I: ndarray, kept: dict[str, ndarray], first_I: ndarray) -> ClassMean:
    index_J = np.concatenate(list(kept.values()))
    class_J = np.repeat(np.arange(len(kept)), [len(of) for of in kept.values()])
    return ClassMean.of(credit_I[index_J], class_J, first_I[index_J], len(first_I), len(kept))


def _scores(encoder: Encoder, data: DataSplit, text_only: bool) -> _Scores:
    """Scores of all items; an image is encoded once for all items about it, a distinct text once per batch."""
    of_image: dict[tuple[str, Box | None], list[int]] = {}
    for index, example in enumerate(data):
        of_image.setdefault((example.image.id, example.window), []).append(index)
    members = list(of_image.values())
    most_true = max(len(example.captions) for example in data)
    most_false = max(len(example.negatives) for example in data)
    true_IT = np.full((len(data), most_true), np.inf)
    false_IF = np.full((len(data), most_false), -np.inf)
    pairs = most_true * (most_true - 1) // 2
    text_true_IT = np.full((len(data), pairs), np.inf)
    text_false_IF = np.full((len(data), most_true * most_false), -np.inf)
    compared = text_only
    for rows, images in image_batches(encoder, [data.examples[of[0]].view for of in members]):
        step = _IMAGES_TOGETHER if pairwise(encoder) else len(images)
        for start in range(0, len(images), step):
            together = members[rows][start : start + step]
            examples = [data.examples[index] for of in together for index in of]
            distinct = DistinctTexts.of([text for each in examples for text in (*each.captions, *each.negatives)])
            texts = encoder.texts(distinct.texts, text_need(encoder))
            to_text_NU = similarity_scores(encoder, images[start : start + step], texts)[0]
            compared = compared and texts.global_MD is not None
            cosine = _cosines(texts) if compared else None
            done = 0
            for row, index in ((row, index) for row, of in enumerate(together) for index in of):
                number_true, number_false = len(data.examples[index].captions), len(data.examples[index].negatives)
                columns = distinct.index_M[done : done + number_true + number_false]
                true_T, false_F = columns[:number_true], columns[number_true:]
                true_IT[index, :number_true] = to_text_NU[row, true_T]
                false_IF[index, :number_false] = to_text_NU[row, false_F]
                if cosine is not None:
                    among, apart = list(combinations(true_T, 2)), list(product(true_T, false_F))
                    text_true_IT[index, : len(among)] = cosine(among)
                    text_false_IF[index, : len(apart)] = cosine(apart)
                done += len(columns)
    return _Scores(true_IT, false_IF, text_true_IT, text_false_IF) if compared else _Scores(true_IT, false_IF)


def _cosines(texts: TextFeatures) -> Callable[[Sequence[tuple[int, int]]], Float32[ndarray, "pairs"]]:
    """Function of pairs of text indices that returns their cosines, bit for bit equal for equal pairs of vectors."""
    unit_MD = unit(present(texts.global_MD, "text").float()).cpu().numpy()

    def cosine(pairs: Sequence[tuple[int, int]]) -> Float32[ndarray, "pairs"]:
        first_J, second_J = np.array(pairs).T
        products: Float32[ndarray, "pairs"] = (unit_MD[first_J] * unit_MD[second_J]).sum(axis=1)
        return products

    return cosine
