"""Files of detections, and the detection protocol on a hand-made split."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sparc_bench.blocks.predicted import outcome_from, outcome_of
from sparc_bench.dataset import Example, Region
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.facets import PixelSize
from sparc_bench.features import Detections, TextFeatures
from sparc_bench.outputs import reader
from sparc_bench.protocols import detection
from tests.toys.encoders import item, split_of

SIDE = 100
OPTIONS = detection.Options(
    iou="bbox",
    rules="coco",
    engine="pycocotools",
    max_detections=100,
    recall_at=(1, 100),
    area_edges=(1024, 9216),
    categories="all",
    prompts="bare",
    classes="own",
)


def box_mask(box):
    left, top, right, bottom = map(int, box)
    mask_HW = np.zeros((SIDE, SIDE), dtype=bool)
    mask_HW[top:bottom, left:right] = True
    return mask_HW


def region(label, left, top, width, height, **about):
    box = (left, top, left + width, top + height)
    return Region(box, label, float(width * height), mask=lambda: box_mask(box), **about)


def example(item_id, *regions):
    return Example(id=item_id, image=item(item_id), regions=regions, facets=(PixelSize(SIDE, SIDE),))


@pytest.fixture
def data():
    """Two cats (one small, one large) and a dog; the bird is in no image; category ids leave a gap."""
    return split_of(
        [
            example("12", region(0, 10, 10, 20, 20), region(1, 40, 40, 40, 50)),
            example("9", region(0, 0, 0, 98, 98)),
            example("7"),
        ],
        classes=("cat", "dog", "bird"),
        category_ids=(1, 3, 8),
    )


def row(image, category, box, score=0.5):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


PERFECT = [row(12, 1, [10, 10, 20, 20]), row(12, 3, [40, 40, 40, 50]), row(9, 1, [0, 0, 98, 98])]


@pytest.fixture
def scored(json_file, data):
    def go(rows, options=OPTIONS, split=None):
        kind, outputs, _ = reader.read(json_file(rows), detection.OUTPUTS)
        return outcome_from(detection, detection.OUTPUTS[kind](outputs, split or data, options), split or data, options)

    return go


def values(outcome):
    """Metrics; an average of a hundred ones is one but for rounding."""
    return {name: round(statistic.value, 12) for name, statistic in outcome.metrics.items()}


def test_perfect_detections_score_one(scored):
    outcome = scored(PERFECT)
    sizes = ("small", "medium", "large")
    named = ["ap", "ap50", "ap75", *(f"ap_{size}" for size in sizes), "ar_at_1", "ar_at_100"]
    assert values(outcome) == dict.fromkeys([*named, *(f"ar_{size}" for size in sizes)], 1.0)
    assert outcome.counts == {
        "images": 3,
        "images_without_detections": 1,
        "objects": 3,
        "crowd_ignored": 0,
        "classes": 2,
        "detections": 3,
    }
    assert outcome.notes[0] == "1 of 3 images have no detection."
    assert list(outcome.groups["class"]) == ["cat", "dog"]


def test_average_precision_by_hand(scored):
    """Two cats: the surest detection is wrong, the second right, the other cat is missed; the dog is found."""
    rows = [row(12, 1, [70, 70, 20, 20], 0.9), row(12, 1, [10, 10, 20, 20], 0.8), row(12, 3, [40, 40, 40, 50])]
    outcome = scored(rows)
    cat = 51 / 101 * 1 / 2  # recall reaches one half at a precision of one half
    assert outcome.groups["class"]["cat"].value == pytest.approx(cat)
    assert values(outcome)["ap"] == pytest.approx((cat + 1) / 2)
    assert values(outcome)["ap_large"] == 0
    assert values(outcome)["ar_at_100"] == pytest.approx((1 / 2 + 1) / 2)
    assert values(outcome)["ar_at_1"] == pytest.approx((0 + 1) / 2)
    # a box that is half off: IoU 1/3
    assert values(scored([row(12, 3, [60, 40, 40, 50])]))["ap50"] == 0


def test_crowds_are_ignored(scored, data):
    crowd = split_of(
        [example("12", region(0, 10, 10, 20, 20), region(0, 50, 50, 50, 50, crowd=True))],
        classes=data.classes,
        category_ids=data.category_ids,
    )
    rows = [row(12, 1, [60, 60, 20, 20], 0.9), row(12, 1, [10, 10, 20, 20], 0.8)]
    assert values(scored(rows, split=crowd))["ap"] == 1.0


def test_clusters_are_the_examples_in_their_order(scored, data):
    """Official ties go by ascending image id, clusters by the data set's order."""
    ap = scored([*PERFECT, row(7, 1, [1, 1, 9, 9], 0.9)]).metrics["ap"]
    assert ap.clusters == len(data)
    assert (ap.truths_GK.tolist(), ap.false_GK[:, 0].tolist()) == ([[1, 1], [1, 0], [0, 0]], [0, 0, 1])
    weights = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1.0]])
    # the wrong detection of the last image is the surest: cats are found at a precision of 1/2 and 2/3
    assert ap.values_S(weights).tolist() == pytest.approx([1.0, 1.0, (2 / 3 + 1) / 2])


def test_ties_keep_the_order_of_image_ids(scored, data):
    """All scores equal: the wrong detection in image 7 comes first, though that image is the last example."""
    rows = [*PERFECT, row(7, 1, [1, 1, 9, 9])]
    outcome = scored(rows)
    assert outcome.ties == 2
    assert outcome.groups["class"]["cat"].value == pytest.approx(2 / 3)


def test_only_the_best_detections_of_a_class_count(scored):
    rows = [row(12, 1, [70, 70, 20, 20], 0.9), row(12, 1, [10, 10, 20, 20], 0.8), row(9, 1, [0, 0, 98, 98])]
    one = OPTIONS.model_copy(update={"max_detections": 1, "recall_at": (1,)})
    assert values(scored(rows, one))["ar_at_1"] == pytest.approx(1 / 2 / 2)
    assert values(scored(rows))["ar_at_100"] == pytest.approx((1 + 0) / 2)


def test_masks(scored, data):
    rows = []
    for detection_row in PERFECT:
        left, top, width, height = detection_row["bbox"]
        packed = coco_mask.encode(np.asfortranarray(box_mask((left, top, left + width, top + height)), np.uint8))
        rows.append(
            {key: detection_row[key] for key in ("image_id", "category_id", "score")}
            | {"segmentation": {"size": [SIDE, SIDE], "counts": packed["counts"].decode()}}
        )
    segm = OPTIONS.model_copy(update={"iou": "segm"})
    assert set(values(scored(rows, segm)).values()) == {1.0}
    column = np.concatenate([[0], box_mask((10, 10, 30, 30)).T.ravel(), [0]]).astype(int)
    edges = np.flatnonzero(np.diff(column))
    rows[0]["segmentation"]["counts"] = np.diff([0, *edges, SIDE * SIDE]).tolist()
    assert set(values(scored(rows, segm)).values()) == {1.0}
    with pytest.raises(
        UserError, match='has 3 detections without "bbox", such as one of image 12: this task scores boxes'
    ):
        scored(rows)
    with pytest.raises(UserError, match='without "segmentation"'):
        scored(PERFECT, segm)
    rows[0]["segmentation"] = {"size": [SIDE, 2 * SIDE], "counts": [2 * SIDE * SIDE]}
    with pytest.raises(UserError, match="a mask of 100 x 200 pixels for the image 12 of 100 x 100"):
        scored(rows, segm)


def test_some_categories(scored):
    cats = OPTIONS.model_copy(update={"categories": ("cat",)})
    assert list(scored(PERFECT, cats).groups["class"]) == ["cat"]
    with pytest.raises(UserError, match="no category 'cot': did you mean 'cat'"):
        scored(PERFECT, OPTIONS.model_copy(update={"categories": ("cot",)}))
    with pytest.raises(UserError, match="no object of these categories"):
        scored(PERFECT, OPTIONS.model_copy(update={"categories": ("bird",)}))


def test_images_beyond_the_task_are_noted(scored):
    outcome = scored([*PERFECT, row(555, 1, [0, 0, 1, 1])])
    assert "1 images of" in outcome.notes[0]
    assert values(outcome)["ap"] == 1.0
    with pytest.raises(UserError, match=r"None of the 1 ids of .* is of this task"):
        scored([row(555, 1, [0, 0, 1, 1])])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"category_id": 2}, r"detections of category 2, which handmade lacks \(it has 3, 1 to 8\)"),
        ({"bbox": [5, 5, -1, 2]}, r"row 1\.bbox: the box \[5\.0, 5\.0, -1\.0, 2\.0\] has a negative width"),
        ({"bbox": [5, 5, float("nan"), 2]}, r"row 1\.bbox: the box .* is not finite"),
        ({"bbox": [5, 5, 2]}, r"row 1\.bbox"),
        ({"score": float("inf")}, r"row 1\.score: .*finite number"),
        ({"score": None}, r"row 1\.score"),
        ({"category_id": "cat"}, r"row 1\.category_id"),
        ({"segmentation": {"size": [2, 2], "counts": "zzz"}}, r"row 1\.segmentation.*counts"),
        ({"segmentation": {"size": [2, 2], "counts": [1, 2]}}, r"row 1\.segmentation.*of 3 pixels, its size of 4"),
        ({"segmentation": [[1, 1, 2, 2, 3, 3]]}, r"row 1\.segmentation"),
    ],
)
def test_rows_that_do_not_fit(scored, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        scored([PERFECT[0], {**PERFECT[1], **changes}])


def test_rows_are_numbered_across_the_parts_in_which_they_are_checked(scored, monkeypatch):
    monkeypatch.setattr("sparc_bench.outputs.detections._AT_ONCE", 2)
    assert values(scored(PERFECT))["ap"] == 1.0
    with pytest.raises(UserError, match=r"row 2\.score"):
        scored([*PERFECT[:2], {**PERFECT[2], "score": "high"}])


def test_data_without_category_numbers(scored, data):
    bare = split_of(data.examples, classes=data.classes)
    with pytest.raises(UserError, match="has no category ids"):
        scored(PERFECT, split=bare)


def test_lvis_rules_need_data_that_know_what_was_checked(scored):
    lvis = OPTIONS.model_copy(update={"rules": "lvis", "engine": "faster-coco-eval"})
    with pytest.raises(UserError, match="does not say what its images were checked for"):
        scored(PERFECT, lvis)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"area_edges": (5, 5)}, "two ascending numbers"),
        ({"recall_at": (101,)}, r"numbers of 1 to max_detections \(100\)"),
        ({"rules": "lvis"}, "pycocotools has no rules for lvis"),
    ],
)
def test_options_that_do_not_fit(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        detection.Options(**{**OPTIONS.model_dump(), **changes})


class NamedBoxes(Encoder):
    """A detector that knows the split."""

    card = SimpleNamespace(name="named_boxes")
    gives = frozenset({"image", "text", "detect"})
    paths: ClassVar = {}
    prompt_ensemble = "embeddings"

    def __init__(self, data):
        self.regions = {e.id: e.regions for e in data}
        self.asked = []

    def texts(self, texts, need):
        self.asked.append(("texts", len(texts)))
        return TextFeatures(tuple(texts), torch.zeros(len(texts), 1) if "global" in need else None)

    def detect(self, views, texts):
        self.asked.append(("views", len(views)))
        found = [(i, r) for i, each in enumerate(views) for r in self.regions[each.id]]
        return Detections(
            torch.tensor([i for i, _ in found], dtype=torch.int64),
            torch.tensor([texts.texts.index(f"a photo of a {('cat', 'dog')[r.label]}.") for _, r in found]),
            torch.tensor([r.box for _, r in found]).float(),
            torch.ones(len(found)),
        )


def test_a_model_that_detects_by_name(data, monkeypatch):
    monkeypatch.setattr(detection, "IMAGES_AT_ONCE", 2)
    data = split_of([*data.examples[:2], example("3", region(1, 5, 5, 20, 20))], classes=data.classes)
    detector = NamedBoxes(data)
    outcome = outcome_of(detection, detector, data, OPTIONS.model_copy(update={"prompts": "a_photo_of_a"}))
    assert set(values(outcome).values()) == {1.0}
    assert detector.asked == [("texts", 3), ("views", 2), ("views", 1)]
    with pytest.raises(UserError, match='boxes: choose a task with iou = "bbox"'):
        outcome_of(detection, detector, data, OPTIONS.model_copy(update={"iou": "segm"}))
    with pytest.raises(UserError, match="one prompt for a class, but 'openai7' has 7"):
        outcome_of(detection, detector, data, OPTIONS.model_copy(update={"prompts": "openai7"}))


@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        ({"image_index_R": 7}, "named_boxes gives 1 detections of image 7, but was given 3 images, numbered from 0"),
        ({"text_index_R": -1}, "named_boxes gives 1 detections of text -1, but was given 3 texts"),
        ({"box_R4": torch.tensor([20.0, 5, 5, 20])}, r"named_boxes gives 1 boxes of negative width or height, such as"),
    ],
)
def test_impossible_detections_of_a_model_are_refused(data, odd, sentence):
    class Odd(NamedBoxes):
        def detect(self, views, texts):
            found = super().detect(views, texts)
            for name, value in odd.items():
                getattr(found, name)[0] = value
            return found

    with pytest.raises(UserError, match=sentence):
        outcome_of(detection, Odd(data), data, OPTIONS.model_copy(update={"prompts": "a_photo_of_a"}))


@pytest.mark.parametrize(
    ("factor", "sentence"), [(1 / SIDE, "3 of 3 boxes .* fractions"), (100.0, "leave their image")]
)
def test_boxes_of_a_model_in_another_unit_are_named(data, factor, sentence):
    class Odd(NamedBoxes):
        def detect(self, views, texts):
            found = super().detect(views, texts)
            found.box_R4.mul_(factor)
            return found

    options = OPTIONS.model_copy(update={"prompts": "a_photo_of_a"})
    if factor < 1:
        with pytest.raises(UserError, match=sentence):
            outcome_of(detection, Odd(data), data, options)
    else:
        assert sentence in outcome_of(detection, Odd(data), data, options).notes[0]


def test_no_detections_at_all(scored):
    outcome = scored([])
    assert set(values(outcome).values()) == {0.0}
    assert outcome.counts["images_without_detections"] == 3


def test_an_empty_list_is_no_list_of_captions(json_file):
    with pytest.raises(UserError, match="holds no known outputs"):
        reader.read(json_file([]), {"captions"})


def test_boxes_that_leave_their_image_are_named(scored):
    outcome = scored([*PERFECT, row(12, 1, [80, 10, 30, 20])])
    assert outcome.notes[0].startswith("1 of 4 boxes of ")
    assert "[80.0, 10.0, 30.0, 20.0] of image 12 (row 3) in 100 x 100 pixels" in outcome.notes[0]


def test_boxes_in_another_format(scored):
    fractions = [row(each["image_id"], each["category_id"], [side / SIDE for side in each["bbox"]]) for each in PERFECT]
    with pytest.raises(UserError, match=r"3 of 3 boxes .* fractions of the image"):
        scored(fractions)
    corners = [row(9, 1, [left, left, left + 20, left + 20]) for left in range(0, 80, 10)]
    with pytest.raises(UserError, match=r"3 of 8 boxes .* of image 9 .row 5. .* as left, top, right, bottom"):
        scored(corners)


def test_a_data_set_with_odd_boxes(scored, data):
    odd = split_of(
        [example("12", region(0, float("nan"), 10, 20, 20))], classes=data.classes, category_ids=data.category_ids
    )
    with pytest.raises(UserError, match=r"The image 12 has a region with the box \[nan"):
        scored(PERFECT, split=odd)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings(json_file, encoding):
    path = json_file(PERFECT)
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert len(reader.read(path, {"detections"})[1].score_D) == 3
