"""AP as a statistic against pycocotools, on made-up detections with crowds, ignored ranges and weights."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparc_bench.metrics.average_precision import AveragePrecision
from sparc_bench.metrics.estimate import estimate
from sparc_bench.metrics.wilson import wilson_interval

IMAGES, CLASSES = 14, 4


def random_boxes(rng, count):
    corner, extent = rng.uniform(0, 60, size=(count, 2)), rng.uniform(5, 60, size=(count, 2))
    return np.concatenate([corner, extent], axis=1)


def made_up(seed=0):
    """Objects of three of four classes and detections that are moved or wrong, with crowds."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for image in range(IMAGES - 2):
        for box in random_boxes(rng, rng.integers(1, 6)):
            label = int(rng.integers(3))
            truths.append((image, label, box.tolist(), int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 3)):
                moved = (box + rng.normal(scale=3, size=4)).tolist()
                detections.append((image, label if rng.random() < 0.7 else int(rng.integers(4)), moved, rng.random()))
        for box in random_boxes(rng, 3):
            detections.append((image, int(rng.integers(4)), box.tolist(), rng.random()))
    return truths, detections


def evaluated(truths, detections, order=tuple(range(IMAGES)), labels=tuple(range(CLASSES))):
    """COCOeval on the images of `order`, which may repeat, and the classes of `labels`."""
    coco = COCO()
    annotations = [
        {"image_id": 1 + at, "category_id": 1 + label, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for at, index in enumerate(order)
        for image, label, box, crowd in truths
        if image == index
    ]
    coco.dataset = {
        "images": [{"id": 1 + at} for at in range(len(order))],
        "categories": [{"id": 1 + label, "name": str(label)} for label in range(CLASSES)],
        "annotations": [annotation | {"id": 1 + number} for number, annotation in enumerate(annotations)],
    }
    results = [
        {"image_id": 1 + at, "category_id": 1 + label, "bbox": box, "score": score}
        for at, index in enumerate(order)
        for image, label, box, score in detections
        if image == index
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.catIds = [1 + label for label in labels]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_value_equals_cocoeval(seed):
    evaluation = evaluated(*made_up(seed))
    ours = [
        AveragePrecision.of(evaluation).value,
        AveragePrecision.of(evaluation, thresholds=[0]).value,
        AveragePrecision.of(evaluation, thresholds=[5]).value,
        *(AveragePrecision.of(evaluation, area=area).value for area in (1, 2, 3)),
    ]
    theirs = [np.nan if value == -1 else value for value in evaluation.stats[:6]]
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    assert 0.05 < ours[0] < 0.95


def test_whole_weights_equal_repeated_images():
    truths, detections = made_up()
    statistic = AveragePrecision.of(evaluated(truths, detections))
    rng = np.random.default_rng(1)
    weights = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=12)
    # a draw without any object of one class, and one that knows a single image
    weights[0] = [0 if any(i == image and label == 0 for i, label, _, _ in truths) else 2 for image in range(IMAGES)]
    weights[1] = 3 * np.eye(IMAGES, dtype=int)[2]
    repeated = [evaluated(truths, detections, np.repeat(np.arange(IMAGES), row)).stats[0] for row in weights]
    assert statistic.values_S(weights.astype(float)) == pytest.approx(np.array(repeated), abs=1e-12)
    assert len(set(repeated)) > 8


def test_equal_scores_keep_the_stable_order():
    truths, detections = made_up()
    level = [(image, label, box, 0.5) for image, label, box, _ in detections]
    evaluation = evaluated(truths, level)
    assert AveragePrecision.of(evaluation).value == pytest.approx(evaluation.stats[0], abs=1e-12)


def test_blocks_of_resamples_do_not_change_values(monkeypatch):
    statistic = AveragePrecision.of(evaluated(*made_up()))
    weights = np.random.default_rng(0).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=9).astype(float)
    whole = statistic.values_S(weights)
    monkeypatch.setattr("sparc_bench.metrics.average_precision._CELLS", 1)
    assert statistic.values_S(weights) == pytest.approx(whole, abs=1e-14)


def test_classes_evaluated_alone_and_joined():
    truths, detections = made_up()
    evaluation = evaluated(truths, detections)
    parts = [AveragePrecision.of(evaluated(truths, detections, labels=[label])) for label in range(CLASSES)]
    for label in range(3):
        precision = evaluation.eval["precision"][:, :, label, 0, -1]
        assert parts[label].value == pytest.approx(precision.mean(), abs=1e-12)
    assert np.isnan(parts[3].value)
    whole, joined = AveragePrecision.of(evaluation), AveragePrecision.joined(parts)
    for name, array in whole.arrays().items():
        assert (joined.arrays()[name] == array).all()
    assert joined.value == pytest.approx(np.mean([part.value for part in parts[:3]]))


def test_nothing_to_find_is_nan():
    truths, detections = made_up()
    statistic = AveragePrecision.of(evaluated(truths, detections))
    assert np.isnan(statistic.values_S(np.zeros((1, IMAGES))))[0]


def test_arrays_rebuild_it_and_start_with_the_clusters():
    statistic = AveragePrecision.of(evaluated(*made_up()))
    again = AveragePrecision(**statistic.arrays())
    assert again.clusters == IMAGES
    assert again.value == statistic.value
    assert statistic.arrays()["false_place_F"].dtype == np.uint8


def test_placed_among_more_images_in_another_order():
    """Eight of the images in reverse among eleven: draws of the same images give the same numbers."""
    truths, detections = made_up()
    chosen = [9, 4, 0, 7, 2, 11, 5, 1]
    statistic = AveragePrecision.of(evaluated(truths, detections, order=chosen))
    place_G = np.array([10, 8, 7, 5, 4, 3, 1, 0])
    placed = statistic.placed(place_G, 11)
    assert placed.clusters == 11
    assert placed.value == statistic.value
    weights_SG = np.random.default_rng(1).multinomial(11, np.full(11, 1 / 11), size=20).astype(float)
    assert placed.values_S(weights_SG) == pytest.approx(statistic.values_S(weights_SG[:, place_G]), abs=1e-12)
    # plain false positives stay ordered by class, then image, which joining and storing count on
    again = statistic.placed(np.arange(8), 8)
    for name, array in statistic.arrays().items():
        assert (again.arrays()[name] == array).all()
    joined = AveragePrecision.joined([placed, placed])
    assert joined.values_S(weights_SG) == pytest.approx(placed.values_S(weights_SG), abs=1e-12)


def test_a_score_without_variance_rests_on_the_images_that_have_objects():
    """One image with an object of the rarest class: nothing found there is no proof that nothing ever is."""
    truths = [(0, 0, [1, 1, 9, 9], 0), (5, 1, [1, 1, 9, 9], 0), (6, 1, [1, 1, 9, 9], 0)]
    detections = [(image, label, [50, 50, 9, 9], 0.5) for image, label, _, _ in truths]
    found = estimate(AveragePrecision.of(evaluated(truths, detections)))
    assert (found.value, found.method, found.clusters) == (0.0, "equal", IMAGES)
    assert found.high == pytest.approx(wilson_interval(0.0, 2)[1])
