"""The detection protocol against the 24 numbers that the COCO authors publish for their own fake detections."""

import json

import pytest

from sparc_bench.blocks.predicted import outcome_from
from sparc_bench.datasets import coco_instances
from sparc_bench.outputs import reader
from sparc_bench.protocols import detection

NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_at_1", "ar_at_10", "ar_at_100", "ar_small", "ar_medium", "ar_large"),
)
OFFICIAL = {
    "bbox": (
        *(0.5045806987249628, 0.6969727247299577, 0.5729816669904824),
        *(0.5856257209410443, 0.5193996948036719, 0.5013978986347466),
        *(0.38681277964578054, 0.5936795762842003, 0.595352982877607),
        *(0.6398109626113442, 0.5664205978994309, 0.5642905982905982),
    ),
    "segm": (
        *(0.3195452758576433, 0.5622883972521636, 0.29892653412086784),
        *(0.3873740315997838, 0.31018272403369485, 0.3269339071005138),
        *(0.2682297225711534, 0.41544868114906375, 0.4168394992198818),
        *(0.4694498622754236, 0.37675922666197265, 0.3814715099715099),
    ),
}


@pytest.fixture(scope="module")
def data(test_data, tmp_path_factory):
    """The 100 images of the reference; nothing of a photo but its name is looked at."""
    root = tmp_path_factory.mktemp("reference")
    (root / "ref/photos").mkdir(parents=True)
    content = (test_data / "coco_eval_reference/instances_val2014_100.json").read_bytes()
    (root / "ref/instances.json").write_bytes(content)
    for image in json.loads(content)["images"]:
        (root / "ref/photos" / image["file_name"]).touch()
    options = coco_instances.Options(folder="ref", annotations="instances.json", images="photos")
    return coco_instances.read(root, "val2014", options)


@pytest.mark.slow
@pytest.mark.parametrize("iou", OFFICIAL)
@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_official_numbers(data, test_data, iou, engine):
    if engine == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed (extra lvis)")
    options = detection.Options(
        iou=iou,
        rules="coco",
        engine=engine,
        max_detections=100,
        recall_at=(1, 10, 100),
        area_edges=(1024, 9216),
        categories="all",
        prompts="bare",
        classes="own",
    )
    file = test_data / f"coco_eval_reference/instances_val2014_fake{iou}100_results.json"
    _, outputs, _ = reader.read(file, detection.OUTPUTS)
    outcome = outcome_from(detection, detection.by_detections(outputs, data, options), data, options)
    found = [outcome.metrics[name].value for name in NAMES]
    assert found == pytest.approx(OFFICIAL[iou], abs=1e-12)
    assert outcome.metrics.keys() == {*NAMES}
    assert (outcome.counts["objects"], outcome.counts["crowd_ignored"]) == (830, 9)
    assert engine in outcome.notes[-1]
