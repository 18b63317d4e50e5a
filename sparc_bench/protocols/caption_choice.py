"""Caption choice: an image with true and false captions, right where every true one scores above every false one.

Shapes: I items, T true captions, F false ones, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, groupby, product

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, image_need, pairwise, recut, text_need
from sparc_bench.errors import UserError, nearest
from sparc_bench.features import ImageFeatures, TextFeatures, present, unit
from sparc_bench.images.view import View
from sparc_bench.metrics.caption_choice import caption_choice
from sparc_bench.metrics.pair_comparison import Ties
from sparc_bench.metrics.statistic import ClassMean, Mean, Statistic
from sparc_bench.outputs.scores_encoder import similarity_predictions
from sparc_bench.protocol import Block, Outcome, Part, Predictions, Work
from sparc_bench.protocols._similarity_scores import DistinctTexts, similarity_scores

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


def units(data: Examples, options: Options) -> list[Int[ndarray, "n"]]:  # noqa: ARG001 - the seam
    """The items about one image, which is encoded once for all of them."""
    of_image: dict[object, list[int]] = {}
    for index, example in enumerate(data):
        of_image.setdefault(example.view.key, []).append(index)
    return [np.array(of) for of in of_image.values()]


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Scores of every item's captions, a distinct text being encoded once for the images scored together.

    Arrays: `true` (I, T) and `false` (I, F), padded with +inf and -inf as `metrics.caption_choice` says; with
    `text_only` and a model of text vectors `text_true` and `text_false`, cosines of all pairs of true captions and of
    every true with every false caption.
    """
    _refuse_other_shapes(work.data, options)
    most = (
        max(len(example.captions) for example in work.data),
        max(len(example.negatives) for example in work.data),
    )
    for part, batches in work.views(encoder, image_need(encoder), _views):
        yield part.block(**_scores(encoder, part, batches, most, options.text_only))


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every item: `accuracy` over all items, `macro_accuracy` over the groups of `options.group_by`.

    Metrics of the text-only task begin with `text_only_`; `groups` are of the image-to-text task. The interval
    is over photos: the credits of a photo's items belong to the cluster of its first item. `correct` is the
    credit of each item. The tie count is the number of items decided by a tie (with `text_only`, in both tasks).
    """
    items = len(data)

    def choice(true: str, false: str) -> tuple[Float[ndarray, "I"], Bool[ndarray, "I"]]:
        return caption_choice(predictions.by_example(true, items), predictions.by_example(false, items), options.ties)

    first_I = _first_of_photo(data)
    credit_I, tied_I = choice("true", "false")
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
    if options.text_only and "text_true" in predictions.blocks[0].arrays:
        examples["text_only_correct"], text_tied_I = choice("text_true", "text_false")
        metrics |= accuracies(examples["text_only_correct"], "text_only_")
        ties += int(text_tied_I.sum())
    elif options.text_only:
        notes.append("The text-only task is left out: there are no text vectors to compare.")
    images = {example.view.key for example in data}
    return Outcome(
        metrics=metrics,
        groups={options.group_by: by_group(credit_I)} if kept else {},
        examples=examples,
        ties=ties,
        counts={"images": len(images), "items": items},
        notes=tuple(notes),
    )


OUTPUTS = {"similarity": similarity_predictions(predict, units)}


def _refuse_other_shapes(data: Examples, options: Options) -> None:
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


def _first_of_photo(data: Examples) -> ndarray:
    """Index of the first item about the same photo, for every item."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(example.image.id, index) for index, example in enumerate(data)])


def _kept_groups(data: Examples, options: Options) -> dict[str, ndarray]:
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


def _left_out(data: Examples, options: Options, kept: dict[str, ndarray]) -> Iterator[str]:
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


def _views(part: Part) -> list[View]:
    """The images of a part, each once."""
    return list({example.view.key: example.view for example in part.examples}.values())


def _scores(
    encoder: Encoder, part: Part, batches: Iterable[ImageFeatures], most: tuple[int, int], text_only: bool
) -> dict[str, Float[ndarray, "I K"]]:
    items = len(part.examples)
    found = {"true": np.full((items, most[0]), np.inf), "false": np.full((items, most[1]), -np.inf)}
    text = {
        "text_true": np.full((items, most[0] * (most[0] - 1) // 2), np.inf),
        "text_false": np.full((items, most[0] * most[1]), -np.inf),
    }
    members = [list(of) for _, of in groupby(range(items), lambda row: part.examples[row].view.key)]
    compared, first = text_only, 0
    for images in (some for batch in batches for some in recut([batch], _together(encoder, batch))):
        here = [row for of in members[first : first + len(images)] for row in of]
        image_of = [image for image, of in enumerate(members[first : first + len(images)]) for _ in of]
        first += len(images)
        examples = [part.examples[row] for row in here]
        distinct = DistinctTexts.of([text for each in examples for text in (*each.captions, *each.negatives)])
        texts = encoder.texts(distinct.texts, text_need(encoder))
        to_text_NU = similarity_scores(encoder, images, texts)[0]
        compared = compared and texts.global_MD is not None
        cosine = _cosines(texts) if compared else None
        done = 0
        for row, image, example in zip(here, image_of, examples, strict=True):
            number_true, number_false = len(example.captions), len(example.negatives)
            columns = distinct.index_M[done : done + number_true + number_false]
            true_T, false_F = columns[:number_true], columns[number_true:]
            found["true"][row, :number_true] = to_text_NU[image, true_T]
            found["false"][row, :number_false] = to_text_NU[image, false_F]
            if cosine is not None:
                among, apart = list(combinations(true_T, 2)), list(product(true_T, false_F))
                text["text_true"][row, : len(among)] = cosine(among)
                text["text_false"][row, : len(apart)] = cosine(apart)
            done += len(columns)
    return found | text if compared else found


def _together(encoder: Encoder, images: ImageFeatures) -> int:
    return _IMAGES_TOGETHER if pairwise(encoder) else len(images)


def _cosines(texts: TextFeatures) -> Callable[[Sequence[tuple[int, int]]], Float32[ndarray, "pairs"]]:
    """Function of pairs of text indices that returns their cosines, bit for bit equal for equal pairs of vectors."""
    unit_MD = unit(present(texts.global_MD, "text").float()).cpu().numpy()

    def cosine(pairs: Sequence[tuple[int, int]]) -> Float32[ndarray, "pairs"]:
        first_J, second_J = np.array(pairs).T
        products: Float32[ndarray, "pairs"] = (unit_MD[first_J] * unit_MD[second_J]).sum(axis=1)
        return products

    return cosine
