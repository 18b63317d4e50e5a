"""Minimal pairs: two images and two captions that differ in one fact, scored as text, image and group.

Shapes: G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder, image_need, text_need
from sparc_bench.errors import UserError, nearest
from sparc_bench.metrics.pair_comparison import Ties, compare_pairs
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.outputs.scores_encoder import similarity_predictions
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._similarity_scores import DistinctTexts, bounded, similarity_scores

VERSION = 1
TITLE = "minimal pairs: text, image and group score"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions", "pairs"})


class Options(Strict):
    """Options of the protocol in a task card."""

    ties: Ties
    """expected: the mean credit over random orders of equal scores; lose: a tie is an error (Winoground's rule);
    win: it is right"""
    group_by: tuple[str, ...]
    """tags of the per-group tables; "edit+of" is a table over pairs of their values"""


def units(data: Examples, options: Options) -> list[Int[ndarray, "2"]]:  # noqa: ARG001 - the seam
    """The two examples of every group, which are predicted together."""
    return list(group_members(data))


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:  # noqa: ARG001 - the seam
    """Scores (G, 2, 2) of the two images with the two captions of every group: `to_text`, `to_image`."""
    for part, batches in work.views(encoder, image_need(encoder), lambda part: [one.view for one in part.examples]):
        distinct = DistinctTexts.of([example.captions[0] for example in part.examples])
        texts = encoder.texts(distinct.texts, text_need(encoder))
        found = [
            similarity_scores(encoder, images, texts) for features in batches for images in bounded(encoder, features)
        ]
        rows = np.arange(len(part.examples)).reshape(-1, 2, 1)
        columns = distinct.index_M.reshape(-1, 1, 2)
        to_text, to_image = (np.concatenate([each[way] for each in found])[rows, columns] for way in (0, 1))
        yield part.block(to_text=to_text.astype(np.float64), to_image=to_image.astype(np.float64))


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every group of two examples with one caption each.

    The interval is over groups: a group's credit belongs to the cluster of its first example. `correct` of an
    example is 1 if its image prefers its caption and its caption its image. The tie count is the number of groups in
    which one of the four comparisons is a tie. Tables by tag show the group score.
    """
    members_G2 = group_members(data)
    result = compare_pairs(predictions.joined("to_text"), predictions.joined("to_image"), options.ties)
    first_G = members_G2[:, 0]

    def mean(credit_G: ndarray, chosen_G: ndarray | slice = slice(None)) -> Mean:
        return Mean.of(credit_G[chosen_G], first_G[chosen_G], len(data))

    correct_N = np.zeros(len(data))
    correct_N[members_G2] = result.own_G2
    tags_G = [data.examples[index].tags for index in first_G]
    groups: dict[str, dict[str, Statistic]] = {}
    for names in options.group_by:
        value_G = _joined(names, tags_G)
        groups[names] = {str(value): mean(result.group_G, value_G == value) for value in np.unique(value_G)}
    equal = np.zeros((1, 2, 2))
    constant = compare_pairs(equal, equal, options.ties)
    return Outcome(
        metrics={
            "text_score": mean(result.text_G),
            "image_score": mean(result.image_G),
            "group_score": mean(result.group_G),
        },
        groups=groups,
        examples={"correct": correct_N},
        ties=int(result.tied_G.sum()),
        counts={"images": len(data), "groups": len(members_G2)},
        reference_rows={
            "constant": {
                "text_score": float(constant.text_G[0]),
                "image_score": float(constant.image_G[0]),
                "group_score": float(constant.group_G[0]),
            }
        },
    )


OUTPUTS = {"similarity": similarity_predictions(predict, units)}


def group_members(data: Examples) -> Int[ndarray, "G 2"]:
    """Indices of the two examples of every group, in order of first appearance; UserError for any other number."""
    found: dict[str, list[int]] = {}
    for index, example in enumerate(data.examples):
        _check(example)
        found.setdefault(str(example.group), []).append(index)
    for group, members in found.items():
        if len(members) != 2:
            raise UserError(f"Group '{group}' has {len(members)} examples: give it two, or leave it out.")
    return np.array(list(found.values()), dtype=np.int64).reshape(-1, 2)


def _check(example: Example) -> None:
    if example.group is None or len(example.captions) != 1:
        raise UserError(
            f"Example '{example.id}' has {len(example.captions)} captions and group {example.group!r}: minimal pairs "
            "need a group and one caption; choose the data set's pairs in the card's [data]."
        )


def _joined(names: str, tags_G: Sequence[Mapping[str, str]]) -> ndarray:
    keys = names.split("+")
    for tags in tags_G:
        for key in keys:
            if key not in tags:
                raise UserError(f"No tag '{key}' to group by: {nearest(key, tags)}")
    return np.array([" ".join(tags[key] for key in keys) for tags in tags_G])
