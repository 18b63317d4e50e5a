"""Every dense protocol: an encoder that knows the answer, a constant one, a random one; order never matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.dataset import Example, Examples, Region
from sparc_bench.facets import PixelSize
from sparc_bench.metrics.region_weights import class_fractions
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import oracle_boxes, regions, segmentation, word_grounding
from tests.toys.encoders import LookupEncoder, constant_encoder, item, noise, split_of

GRID = (4, 4)
SIDE = 8
"""Cells are 2 x 2 pixels; all boxes are whole cells, so that a box's patches can name it exactly."""
NAMES = ("ant", "bee", "cow", "dog", "elk")
PATHS = ("local", "global")
SEGMENTATION = segmentation.Options(
    prompts="bare", classes="own", background="ignore", background_words=(), background_score="none", upsample="nearest"
)
WITH_BACKGROUND = SEGMENTATION.model_copy(update={"background": "class", "background_words": ("nothing",)})
REGIONS = regions.Options(
    prompts="bare", classes="own", region="box", min_side=0, area_of="box", area_unit="image", area_edges=(0.1, 0.2)
)
BOXES = oracle_boxes.Options(
    prompts="bare", classes="own", max_detections=100, area_of="box", area_unit="image", area_edges=(0.1, 0.2)
)

WORDS = word_grounding.Options(
    map="text", prompts="bare", classes="own", words=("noun",), regions="mask", absent=2, function_words=("nothing",),
    area_unit="image", area_edges=(0.1, 0.2),
)  # fmt: skip


def scene_map(index: int, seed: int) -> np.ndarray:
    """Background (-1) with a void row (-2) and up to three objects of whole cells in different quadrants."""
    rng = np.random.default_rng([seed, index])
    truth = np.full((SIDE, SIDE), -1)
    for quadrant in rng.permutation(4)[: rng.integers(1, 4)]:
        top, left = 4 * (quadrant // 2), 4 * (quadrant % 2)
        truth[top : top + 2 * rng.integers(1, 3), left : left + 2 * rng.integers(1, 3)] = rng.integers(len(NAMES))
    return truth


def dense_split(images: int, seed: int = 0, classes: tuple[str, ...] = NAMES) -> Examples:
    examples = []
    for index in range(images):
        truth = np.array([classes.index(name) for name in NAMES] + [-1])[scene_map(index, seed)]
        found = []
        for row, column in ((0, 0), (0, 4), (4, 0), (4, 4)):
            mask = np.zeros_like(truth, dtype=bool)
            mask[row : row + 4, column : column + 4] = truth[row : row + 4, column : column + 4] >= 0
            if mask.any():
                ys, xs = np.nonzero(mask)
                box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
                found.append(Region(box, int(truth[mask][0]), float(mask.sum()), mask=mask.copy))
        # a void corner and a crowd: neither may count
        truth = truth.copy()
        truth[-1, -1] = -2
        found.append(Region((7.0, 7.0, 8.0, 8.0), classes.index(NAMES[0]), 1.0, crowd=True))
        examples.append(
            Example(id=f"i{index}", image=item(f"i{index}"), regions=tuple(found), semantic=truth.copy, facets=(SIZE,))
        )
    return split_of(examples, classes=classes)


SIZE = PixelSize(SIDE, SIDE)


def key(data: Examples) -> LookupEncoder:
    """Patches that score every class with its share of the cell; the word "nothing" with the background's."""
    prompts = [*data.classes, "nothing"]
    place = dict(zip(prompts, np.eye(len(prompts)), strict=True))
    shares = {}
    for example in data.examples:
        truth = example.semantic()
        shares[example.id] = class_fractions(
            np.where(truth == -1, len(data.classes), truth), len(prompts), np.array([0, 0, SIDE, SIDE]), GRID
        )
    return LookupEncoder(
        lambda _: np.zeros(len(prompts)),
        lambda text: place[text],
        patch_vectors=lambda _, image_id: shares[image_id].reshape(len(prompts), -1).T,
        grid=GRID,
        size=SIDE,
    )


def random_encoder(seed: int = 0) -> LookupEncoder:
    """Every text and patch has a random vector of its own."""
    return LookupEncoder(
        lambda _: np.zeros(32),
        lambda text: noise(text, 32, seed),
        patch_vectors=lambda path, image_id: noise(f"{path} {image_id}", 16 * 32, seed).reshape(16, 32),
        grid=GRID,
        size=SIDE,
    )


def values(outcome: Outcome) -> dict[str, float]:
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


CASES = {
    "segmentation": (segmentation, SEGMENTATION),
    "segmentation with background": (segmentation, WITH_BACKGROUND),
    "regions": (regions, REGIONS),
    "regions by mask": (regions, REGIONS.model_copy(update={"region": "mask"})),
    "oracle boxes": (oracle_boxes, BOXES),
    "word grounding": (word_grounding, WORDS),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "word grounding"])  # it has differences too
def test_answer_key_scores_one(case):
    protocol, options = CASES[case]
    data = dense_split(70)
    outcome = outcome_of(protocol, key(data), data, options)
    assert values(outcome) == pytest.approx(dict.fromkeys(values(outcome), 1.0), abs=1e-9)
    for statistics in outcome.groups.values():
        assert [statistic.value for statistic in statistics.values()] == pytest.approx([1.0] * len(statistics))


@pytest.mark.parametrize("rule", ["nearest", "bilinear"])
@pytest.mark.parametrize("options", [SEGMENTATION, WITH_BACKGROUND], ids=["ignore", "class"])
def test_segmentation_key_equals_the_oracle_at_its_grid(rule, options):
    """Objects that do not fill cells: no grid can be right everywhere, and the oracle row says how right it can be."""
    data = dense_split(20)
    shifted = [replace(e, semantic=np.roll(e.semantic(), 1, axis=1).copy, regions=()) for e in data.examples]
    data = replace(data, examples=tuple(shifted))
    encoder = key(data)
    if options is SEGMENTATION:
        # the oracle knows shares of labelled pixels only
        shares = {e.id: class_fractions(e.semantic(), 5, np.array([0, 0, SIDE, SIDE]), GRID) for e in data.examples}
        encoder.patch_vectors = lambda _, image_id: np.concatenate(
            [shares[image_id].reshape(5, -1).T, np.zeros((16, 1))], axis=1
        )
    outcome = outcome_of(segmentation, encoder, data, options.model_copy(update={"upsample": rule}))
    assert values(outcome) == pytest.approx(outcome.reference_rows["oracle"], abs=1e-12)
    assert outcome.reference_rows["oracle"]["local/miou"] < 1


def test_constant_segmentation_scores_the_expected_credit():
    """Every pixel is each of the five classes with one fifth: the definite value of a model that says nothing."""
    data = dense_split(20)
    outcome = outcome_of(segmentation, constant_encoder(), data, SEGMENTATION)
    labels = np.concatenate([example.semantic().ravel() for example in data.examples])
    truth = np.bincount(labels[labels >= 0], minlength=5)
    share = truth / 5 / (truth + truth.sum() / 5 - truth / 5)
    assert outcome.metrics["local/miou"].value == pytest.approx(share.mean())
    assert outcome.metrics["local/pixel_accuracy"].value == pytest.approx(1 / 5)
    assert outcome.ties == 2 * truth.sum()
    assert outcome.counts["pixels"] == truth.sum()


def test_constant_regions_score_one_in_c():
    data = dense_split(20)
    outcome = outcome_of(regions, constant_encoder(), data, REGIONS)
    assert values(outcome) == pytest.approx(dict.fromkeys(values(outcome), 1 / 5))
    assert outcome.ties == 2 * outcome.counts["regions"]
    assert outcome.counts["crowd_left_out"] == 20


def test_constant_boxes_score_the_stable_order():
    data = dense_split(20)
    outcome = outcome_of(oracle_boxes, constant_encoder(), data, BOXES)
    constant = outcome.reference_rows["constant"]
    assert {name: values(outcome)[name] for name in constant} == pytest.approx(constant, abs=1e-12)
    assert "global/ap75" in constant
    labels = np.array([region.label for example in data.examples for region in example.regions if not region.crowd])
    assert outcome.metrics["local/ap"].value == pytest.approx(np.mean([plain_ap(labels == c) for c in range(5)]))
    assert outcome.ties == 2 * 5 * (len(labels) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["segmentation", "regions"])
def test_random_scores_one_in_c(case):
    protocol, options = CASES[case]
    data = dense_split(40)
    drawn = [values(outcome_of(protocol, random_encoder(seed), data, options)) for seed in range(12)]
    names = ("pixel_accuracy",) if case == "segmentation" else ("top1", "mean_per_class")
    for name in (f"{path}/{name}" for path in PATHS for name in names):
        assert np.mean([found[name] for found in drawn]) == pytest.approx(1 / 5, abs=0.04)


@pytest.mark.slow
def test_random_boxes_score_the_mean_of_random_rankings():
    data = dense_split(40)
    drawn = [values(outcome_of(oracle_boxes, random_encoder(seed), data, BOXES)) for seed in range(3)]
    rng = np.random.default_rng(0)
    labels = np.array([region.label for example in data.examples for region in example.regions if not region.crowd])
    shuffled = np.mean([plain_ap(rng.permutation(labels) == c) for c in range(5) for _ in range(60)])
    found = np.mean([values[f"{path}/ap"] for values in drawn for path in PATHS])
    assert found == pytest.approx(shuffled, abs=0.05)


@pytest.mark.parametrize("case", CASES)
def test_order_of_candidates_and_examples_does_not_matter(case):
    protocol, options = CASES[case]
    plain = outcome_of(protocol, random_encoder(), dense_split(12), options)
    turned = dense_split(12, classes=NAMES[::-1])
    turned = replace(turned, examples=turned.examples[::-1])
    again = outcome_of(protocol, random_encoder(), turned, options)
    assert values(again) == pytest.approx(values(plain), abs=1e-9)
    by = "word" if case == "word grounding" else "class"
    assert {name: s.value for name, s in again.groups[by].items()} == pytest.approx(
        {name: s.value for name, s in plain.groups[by].items()}, abs=1e-9
    )


@pytest.mark.parametrize("case", CASES)
def test_both_paths_are_reported_and_the_untrained_one_is_named(case):
    protocol, options = CASES[case]
    outcome = outcome_of(protocol, random_encoder(), dense_split(5), options)
    stems = {name.split("/", 1)[1] for name in outcome.metrics}
    assert set(outcome.metrics) == {f"{path}/{stem}" for path in PATHS for stem in stems}
    assert set(outcome.reference_rows["constant"]) <= set(outcome.metrics)
    assert [note for note in outcome.notes if "untrained path" in note and note.startswith("global")]
    assert not [note for note in outcome.notes if note.startswith("local")]
    assert all(statistic.clusters == 5 for statistic in outcome.metrics.values())


@pytest.mark.parametrize("name", ["segmentation", "regions", "oracle_boxes", "word_grounding"])
def test_cards_fit_their_protocol(name):
    protocol = discovery.load("protocols", name)
    cards = [card for card in map(discovery.task, discovery.names("tasks")) if card.protocol == name]
    assert cards
    for card in cards:
        protocol.Options.model_validate(card.options)
        assert set(protocol.Options.model_fields) == set(card.options), f"{card.name} leaves an option out"
        assert card.headline.startswith("local/")


def plain_ap(true_by_rank: np.ndarray) -> float:
    """Interpolated AP of a ranking, in plain loops."""
    precisions, recalls, hits = [], [], 0
    for rank, true in enumerate(true_by_rank, start=1):
        hits += bool(true)
        precisions.append(hits / rank)
        recalls.append(hits / true_by_rank.sum())
    reached = [
        max((p for p, r in zip(precisions, recalls, strict=True) if r >= level), default=0.0)
        for level in np.linspace(0, 1, 101)
    ]
    return float(np.mean(reached))
