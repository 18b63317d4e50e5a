from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.card import parse
from sparc_bench.dataset import Example, Region
from sparc_bench.errors import UserError
from sparc_bench.protocols import oracle_boxes, regions
from tests.toys.encoders import LookupEncoder, item, split_of

OPTIONS = {
    "prompts": "bare",
    "classes": "own",
    "region": "box",
    "min_side": 2,
    "area_of": "object",
    "area_unit": "pixels",
    "area_edges": (10, 20),
}
TEXTS = {"cat": [1.0, 0.0], "dog": [0.0, 1.0], "eel": [0.0, 0.0]}


def options(**changes):
    return regions.Options(**{**OPTIONS, **changes})


def left_right():
    """Left patches say cat, right ones dog, the middle both alike."""
    row = [[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]
    return LookupEncoder(
        lambda _: np.zeros(2),
        lambda text: np.array(TEXTS[text]),
        patch_vectors=lambda _path, _id: np.array(row * 4),
        grid=(4, 4),
        size=8,
        paths={"local": True},
    )


def mask_of(rows, columns):
    mask = np.zeros((8, 8), dtype=bool)
    mask[rows, columns] = True
    return lambda: mask


def split():
    """Image a: a cat on the left, a dog on the left (wrong), a dog in the middle (half right); b: none; c: a dog."""
    first = (
        Region((0, 0, 2, 4), 0, 8.0, mask_of(slice(0, 4), slice(0, 2))),
        Region((0, 4, 2, 8), 1, 8.0, mask_of(slice(4, 8), slice(0, 2))),
        Region((2, 0, 6, 4), 1, 16.0, mask_of(slice(0, 4), slice(4, 6))),
        Region((0, 0, 8, 1), 0, 8.0),
        Region((0, 0, 8, 8), 0, 64.0, crowd=True),
    )
    last = (Region((6, 0, 8, 8), 1, 24.0, mask_of(slice(0, 8), slice(6, 8))),)
    return split_of(
        [Example(id=name, image=item(name), regions=found) for name, found in (("a", first), ("b", ()), ("c", last))],
        classes=("cat", "dog", "eel"),
    )


def test_worked_by_hand():
    outcome = outcome_of(regions, left_right(), split(), options())
    assert outcome.rows["local/credit"].tolist() == [1, 0, 0.5, 1]
    assert outcome.rows["example"].tolist() == [0, 0, 0, 2]
    assert outcome.metrics["local/top1"].value == pytest.approx(2.5 / 4)
    assert outcome.metrics["local/mean_per_class"].value == pytest.approx((1 + 1.5 / 3) / 2)
    assert {name: s.value for name, s in outcome.groups["class"].items()} == pytest.approx({"cat": 1, "dog": 0.5})
    assert {name: s.value for name, s in outcome.groups["size"].items()} == pytest.approx(
        {"small": 0.5, "medium": 0.5, "large": 1}
    )
    assert outcome.ties == 1
    assert outcome.counts == {"images": 2, "regions": 4, "crowd_left_out": 1, "small_left_out": 1, "classes": 3}
    assert outcome.reference_rows["constant"] == pytest.approx({"local/top1": 3 / 4, "local/mean_per_class": 1 / 2})
    assert outcome.examples["correct"][[0, 2]].tolist() == [0.5, 1]
    assert np.isnan(outcome.examples["correct"][1])
    assert sorted(outcome.notes) == [
        "1 crowd regions are left out.",
        "1 regions with a side under 2 pixels are left out.",
    ]


def test_images_without_regions_are_clusters_but_never_encoded():
    encoder = left_right()
    outcome = outcome_of(regions, encoder, split(), options())
    assert outcome.metrics["local/top1"].clusters == 3
    assert [count for kind, count in encoder.asked if kind == "images"] == [2]


def test_masks_look_elsewhere_than_boxes():
    outcome = outcome_of(regions, left_right(), split(), options(region="mask"))
    # the middle dog's mask covers half of the middle and none of the left; its patches still say both
    assert outcome.rows["local/credit"].tolist() == [1, 0, 0.5, 1]
    data = split()
    moved = replace(data.examples[0].regions[2], mask=mask_of(slice(0, 4), slice(5, 8)))
    data = replace(data, examples=(replace(data.examples[0], regions=(moved,)), *data.examples[1:]))
    assert outcome_of(regions, left_right(), data, options(region="mask")).rows["local/credit"].tolist() == [1, 1]
    assert outcome_of(regions, left_right(), data, options()).rows["local/credit"].tolist() == [0.5, 1]


def test_a_mask_without_pixels_falls_back_to_its_box():
    data = split()
    empty = replace(data.examples[0].regions[0], mask=lambda: np.zeros((8, 8), dtype=bool))
    data = replace(data, examples=(replace(data.examples[0], regions=(empty,)),))
    assert outcome_of(regions, left_right(), data, options(region="mask")).metrics["local/top1"].value == 1


def test_chunks_do_not_change_scores(monkeypatch):
    whole = outcome_of(regions, left_right(), split(), options())
    monkeypatch.setattr(regions, "CHUNK", 1)
    parts = outcome_of(regions, left_right(), split(), options())
    assert (parts.rows["local/credit"] == whole.rows["local/credit"]).all()


def test_areas_relative_to_the_image():
    outcome = outcome_of(regions, left_right(), split(), options(area_unit="image", area_edges=(0.2, 0.3)))
    assert {name: s.value for name, s in outcome.groups["size"].items()} == pytest.approx(
        {"small": 0.5, "medium": 0.5, "large": 1}
    )


def test_mistakes_end_in_a_sentence():
    with pytest.raises(UserError, match="lower min_side"):
        outcome_of(regions, left_right(), split(), options(min_side=9))
    with pytest.raises(UserError, match="ascending"):
        parse(regions.Options, {**OPTIONS, "area_edges": (20, 10)}, "card")
    data = split()
    bare = replace(data.examples[0].regions[0], mask=None)
    with pytest.raises(UserError, match="set region = 'box'"):
        outcome_of(
            regions,
            left_right(),
            replace(data, examples=(replace(data.examples[0], regions=(bare,)),)),
            options(region="mask"),
        )
    for name in OPTIONS:
        with pytest.raises(UserError, match=name):
            parse(regions.Options, {key: value for key, value in OPTIONS.items() if key != name}, "card")


BOXES = {key: value for key, value in OPTIONS.items() if key not in ("region", "min_side")} | {"max_detections": 100}


def test_oracle_boxes_worked_by_hand():
    """Scores of class dog by box: 0, 0, 0.5, 0.5 (the thin one), 1; true dogs: the second, third and last."""
    outcome = outcome_of(oracle_boxes, left_right(), split(), oracle_boxes.Options(**BOXES))
    groups = {name: s.value for name, s in outcome.groups["class"].items()}
    # ranking of dogs: last (true), middle (true), thin (false), first (false), second (true): 3 of 5 at the end
    assert groups["dog"] == pytest.approx((67 * 1 + 34 * 3 / 5) / 101)
    # the whole-image crowd of cats turns every unmatched cat into nothing, so that both cats rank first
    assert groups["cat"] == pytest.approx(1)
    assert outcome.metrics["local/ap"].value == pytest.approx(np.mean(list(groups.values())))
    assert outcome.counts["crowd_ignored"] == 1
    assert outcome.counts["detections"] == 5 * 3
    assert set(outcome.metrics) == {
        f"local/{name}" for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    }
    # eel scores 0 everywhere (4 repeats), dog has 5 boxes with 3 scores, cat as many
    assert outcome.ties == 4 + 2 + 2


def test_oracle_box_area_ranges_follow_their_unit():
    """In fractions of the image the same edges give the same numbers as in pixels, and a box's area is its own."""
    pixels = outcome_of(oracle_boxes, left_right(), split(), oracle_boxes.Options(**BOXES))
    share = outcome_of(
        oracle_boxes,
        left_right(),
        split(),
        oracle_boxes.Options(**{**BOXES, "area_unit": "image", "area_edges": (10 / 64, 20 / 64)}),
    )
    for name, statistic in pixels.metrics.items():
        assert share.metrics[name].value == pytest.approx(statistic.value, nan_ok=True)
    # large are the last dog (24 pixels, box 16) and, as a detection, no box at all: by its box it is medium
    assert np.isnan(
        outcome_of(oracle_boxes, left_right(), split(), oracle_boxes.Options(**{**BOXES, "area_of": "box"}))
        .metrics["local/ap_large"]
        .value
    )
    assert pixels.metrics["local/ap_large"].value == pytest.approx(1)
