"""The detection protocol under LVIS's rules against these rules in plain loops, and against perfect detections.

The plain version follows Gupta, Dollar and Girshick 2019 (arXiv 1908.03195, section 3 and appendix): the best 300
detections of an image; classes that an image was not checked for are left out; a detection that matches nothing counts
as nothing where the class is not marked exhaustively; AP is the mean precision at 101 recall levels, over ten IoU
thresholds, over classes with objects.
"""

import json

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_from
from sparc_bench.dataset import Example, Region
from sparc_bench.datasets import lvis
from sparc_bench.facets import Federated, PixelSize
from sparc_bench.outputs import reader
from sparc_bench.protocols import detection
from tests.toys.encoders import item, split_of

pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed (extra lvis)")

CLASSES, IMAGES, MOST = 6, 9, 12
FREQUENCIES = ("r", "c", "f", "r", "c", "f")
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]
OPTIONS = detection.Options(
    iou="bbox",
    rules="lvis",
    engine="faster-coco-eval",
    max_detections=MOST,
    recall_at=(MOST,),
    area_edges=(1024, 9216),
    categories="all",
    prompts="bare",
    classes="own",
)


def made_up(seed):
    """Images with objects, checked-for and not exhaustively marked classes, and more detections than count."""
    rng = np.random.default_rng(seed)
    images, rows = [], []
    for number in range(IMAGES):
        objects = []
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 90, 2).round(1), *rng.uniform(8, 90, 2).round(1)]
            objects.append((int(rng.integers(4)), [float(edge) for edge in box]))
        present = {label for label, _ in objects}
        others = [label for label in range(CLASSES) if label not in present]
        absent = {label for label in others if rng.random() < 0.4}
        not_exhaustive = {label for label in present if rng.random() < 0.4}
        images.append((objects, absent, not_exhaustive))
        for label, box in objects:
            for _ in range(rng.integers(0, 4)):
                moved = np.abs(np.array(box) + rng.normal(scale=4, size=4))
                rows.append((number, label if rng.random() < 0.8 else int(rng.integers(CLASSES)), moved.tolist()))
        rows += [
            (number, int(rng.integers(CLASSES)), rng.uniform(1, 60, 4).tolist()) for _ in range(rng.integers(0, 14))
        ]
    # one decimal: scores tie within images and between them
    scored = [(*row, round(float(rng.random()), 1)) for row in rows]
    return images, [scored[index] for index in rng.permutation(len(scored))]


def plain_ap(images, rows, labels=range(CLASSES), area=(0, 1e10), thresholds=tuple(THRESHOLDS)):
    """LVIS's AP, a detection at a time."""
    kept = []
    for number, (objects, absent, _) in enumerate(images):
        best = sorted((row for row in rows if row[0] == number), key=lambda row: -row[3])[:MOST]
        present = {label for label, _ in objects}
        kept += [row for row in best if row[1] in present | absent]
    found = [
        [class_ap(images, kept, label, area, threshold) for threshold in thresholds]
        for label in labels
        if any(
            one == label and area[0] <= box[2] * box[3] <= area[1] for objects, _, _ in images for one, box in objects
        )
    ]
    return float(np.mean(found)) if found else float("nan")


def class_ap(images, kept, label, area, threshold):
    judged = []
    total = 0
    for number, (objects, _, not_exhaustive) in enumerate(images):
        boxes = [box for one, box in objects if one == label]
        counts = [area[0] <= box[2] * box[3] <= area[1] for box in boxes]
        boxes = [box for _, box in sorted(zip(counts, boxes, strict=True), key=lambda pair: not pair[0])]
        counts.sort(reverse=True)
        total += sum(counts)
        taken = [False] * len(boxes)
        for _, _, box, score in sorted((r for r in kept if r[:2] == (number, label)), key=lambda row: -row[3]):
            best, match = min(threshold, 1 - 1e-10), None
            for index, other in enumerate(boxes):
                if taken[index] or (match is not None and counts[match] and not counts[index]):
                    continue
                if overlap(box, other) >= best:
                    best, match = overlap(box, other), index
            if match is not None:
                taken[match] = True
                judged.append((score, True, not counts[match]))
            else:
                outside = not area[0] <= box[2] * box[3] <= area[1]
                judged.append((score, False, outside or label in not_exhaustive))
    true = false = 0
    precision, recall = [], []
    for _, right, ignored in sorted(judged, key=lambda each: -each[0]):
        true, false = true + (right and not ignored), false + (not right and not ignored)
        precision.append(true / (true + false) if true + false else 0.0)
        recall.append(true / total)
    levels = np.linspace(0, 1, 101)
    return np.mean(
        [max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0.0) for level in levels]
    )


def overlap(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def split(images):
    return split_of(
        [
            Example(
                id=str(number),
                image=item(str(number)),
                regions=tuple(
                    Region((b[0], b[1], b[0] + b[2], b[1] + b[3]), label, b[2] * b[3]) for label, b in objects
                ),
                facets=(PixelSize(200, 200), Federated(frozenset(absent), frozenset(some))),
            )
            for number, (objects, absent, some) in enumerate(images)
        ],
        classes=tuple(f"class {label}" for label in range(CLASSES)),
        category_ids=tuple(range(1, CLASSES + 1)),
        frequencies=FREQUENCIES,
    )


def scored(rows, data, path, options=OPTIONS):
    path.write_text(
        json.dumps([{"image_id": i, "category_id": label + 1, "bbox": box, "score": s} for i, label, box, s in rows])
    )
    _, outputs, _ = reader.read(path, detection.OUTPUTS)
    return outcome_from(detection, detection.by_detections(outputs, data, options), data, options)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_rules_in_plain_loops(seed, tmp_path):
    images, rows = made_up(seed)
    outcome = scored(rows, split(images), tmp_path / "rows.json")
    expected = {
        "ap": plain_ap(images, rows),
        "ap50": plain_ap(images, rows, thresholds=(0.5,)),
        "ap75": plain_ap(images, rows, thresholds=(0.75,)),
        "ap_small": plain_ap(images, rows, area=(0, 1024)),
        "ap_medium": plain_ap(images, rows, area=(1024, 9216)),
        "ap_large": plain_ap(images, rows, area=(9216, 1e10)),
        "ap_rare": plain_ap(images, rows, labels=(0, 3)),
        "ap_common": plain_ap(images, rows, labels=(1, 4)),
        "ap_frequent": plain_ap(images, rows, labels=(2, 5)),
    }
    for name, value in expected.items():
        assert outcome.metrics[name].value == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert 0 < expected["ap"] < 1
    assert "agree on the APs" in outcome.notes[-1]


def test_what_is_cut_left_out_and_ignored(tmp_path):
    """One cat, found last of 13 in its image; dogs and birds were not checked for, or not all marked."""
    cat, wrong = [10.0, 10.0, 40.0, 40.0], [100.0, 100.0, 40.0, 40.0]
    images = [([(0, cat)], set(), set())]
    crowded = [(0, 1, wrong, 0.9)] * MOST + [(0, 0, cat, 0.8)]
    outcome = scored(crowded, split(images), tmp_path / "rows.json")
    assert outcome.metrics["ap"].value == 0  # the cut comes before what is not judged is left out
    assert outcome.notes[:2] == (
        "1 detections beyond the best 12 of their image are cut.",
        "12 detections of classes that their image was not checked for are left out.",
    )
    assert scored(crowded[1:], split(images), tmp_path / "rows.json").metrics["ap"].value == pytest.approx(1)
    surest_is_wrong = [(0, 0, wrong, 0.9), (0, 0, cat, 0.8)]
    for some, value in ((set(), 0.5), ({0}, 1.0)):
        marked = split([([(0, cat)], set(), some)])
        assert scored(surest_is_wrong, marked, tmp_path / "rows.json").metrics["ap"].value == pytest.approx(value)
    # a bird where none is: wrong if it was looked for
    elsewhere = [(0, 0, cat, 0.8), (1, 0, wrong, 0.9)]
    for absent, value in ((set(), 1.0), ({0}, 0.5)):
        two = split([([(0, cat)], set(), set()), ([], absent, set())])
        assert scored(elsewhere, two, tmp_path / "rows.json").metrics["ap"].value == pytest.approx(value)
    empty = [(0, 0, [20.0, 20.0, 0.0, 30.0], 0.9), (0, 0, cat, 0.8)]
    outcome = scored(empty, split(images), tmp_path / "rows.json")
    assert outcome.metrics["ap"].value == pytest.approx(1)
    assert outcome.notes[0] == "1 detections without a pixel are left out."


@pytest.mark.slow
def test_perfect_detections_of_the_real_sample(test_data, tmp_path):
    options = lvis.Options(folder="lvis_val_100", annotations="lvis_val_100.json", photos="")
    data = lvis.read(test_data, "val", options)
    truth = json.loads((test_data / "lvis_val_100/lvis_val_100.json").read_bytes())["annotations"]
    rows = [(a["image_id"], a["category_id"] - 1, a["bbox"], 1.0) for a in truth]
    real = OPTIONS.model_copy(update={"max_detections": 300, "recall_at": (300,)})
    outcome = scored(rows, data, tmp_path / "rows.json", real)
    assert {name: round(statistic.value, 9) for name, statistic in outcome.metrics.items()} == dict.fromkeys(
        outcome.metrics, 1.0
    )
    assert {"ap_rare", "ap_common", "ap_frequent", "ar_at_300"} <= outcome.metrics.keys()
    assert outcome.counts["classes"] == len(outcome.groups["class"]) == 190


def test_engines_that_disagree_are_an_error():
    from sparc_bench.errors import UserError
    from sparc_bench.protocols._faster_coco_eval import agreed

    assert "agree on the APs" in agreed(
        {"ap": 0.5, "ap_rare": float("nan")}, {"ap": 0.5 + 5e-7, "ap_rare": float("nan")}
    )
    with pytest.raises(
        UserError, match=r"finds ap = 0\.500010 where pycocotools' matches give 0\.500000: install another"
    ):
        agreed({"ap": 0.5}, {"ap": 0.50001})
