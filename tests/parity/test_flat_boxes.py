"""Objects whose box has no height, which COCOeval counts as missed: two objects, one of them flat, one detection."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparc_bench.blocks.predicted import outcome_from, outcome_of
from sparc_bench.datasets import coco_instances
from sparc_bench.outputs import reader
from sparc_bench.protocols import detection, oracle_boxes, regions
from tests.toys.encoders import constant_encoder

CONTENT = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 40}],
    "categories": [{"id": 1, "name": "ant"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 0], "area": 0, "iscrowd": 0},
    ],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]
SCALE = {"prompts": "bare", "classes": "own", "max_detections": 100, "area_edges": (1024, 9216)}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "flat/photos").mkdir(parents=True)
    (tmp_path / "flat/instances.json").write_text(json.dumps(CONTENT))
    (tmp_path / "flat/found.json").write_text(json.dumps(FOUND))

    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "flat/photos/a.jpg")
    return tmp_path


@pytest.fixture
def data(root):
    options = coco_instances.Options(folder="flat", annotations="instances.json", images="photos")
    return coco_instances.read(root, "val2017", options)


@pytest.fixture
def official(root, capsys):
    truth = COCO(root / "flat/instances.json")
    evaluation = COCOeval(truth, truth.loadRes(str(root / "flat/found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_detections(root, data, official, engine):
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed (extra lvis)")
    options = detection.Options(iou="bbox", rules="coco", engine=engine, recall_at=(100,), categories="all", **SCALE)
    _, outputs, _ = reader.read(root / "flat/found.json", detection.OUTPUTS)
    assert (
        outcome_from(detection, detection.by_detections(outputs, data, options), data, options).metrics["ap"].value
        == pytest.approx(official)
        == pytest.approx(51 / 101)
    )


def test_given_boxes(data, official):
    outcome = outcome_of(
        oracle_boxes, constant_encoder(), data, oracle_boxes.Options(area_of="object", area_unit="pixels", **SCALE)
    )
    assert outcome.metrics["local/ap"].value == pytest.approx(official)
    assert outcome.counts["detections"] == 1
    assert "1 regions without width or height are left out." in outcome.notes


def test_a_region_without_a_pixel_is_not_classified(data):
    options = regions.Options(
        prompts="bare", classes="own", region="box", min_side=0, area_of="box", area_unit="pixels", area_edges=(9, 99)
    )
    outcome = outcome_of(regions, constant_encoder(), data, options)
    assert outcome.counts["regions"] == 1
    assert "1 regions without width or height are left out." in outcome.notes
    assert "2 regions" not in str(outcome.notes)
