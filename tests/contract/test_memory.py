"""20,000 examples take little memory, beside the data themselves and the blocks, which lie on disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sparc_bench.blocks.block_store import BlockFolder
from sparc_bench.blocks.predicted import outcome_from, predicted
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.protocol import Outcome
from sparc_bench.protocols import detection
from tests.contract import test_dense_protocols as dense
from tests.contract import test_finite as finite
from tests.contract import test_image_protocols as whole
from tests.contract import test_probes as probes
from tests.toys.encoders import item

EXAMPLES = 20_000
CAPTIONS = 100
"""Distinct captions, each of 200 images: by retrieval all images are scored with each once."""

MOST = 100
"""MB above what the process holds before. Measured: 7 to 61."""

MOST_OF_DETECTION = 300
"""The same for detection: pycocotools holds an object of Python for every box.

Measured: 185 with 20,000 boxes and as many detections."""

CASES = (
    "classification",
    "corruptions",
    "caption_choice",
    "object_presence",
    "minimal_pairs",
    "regions",
    "segmentation",
    "word grounding",
    "k nearest neighbours",
    "linear probe",
    "retrieval",
    "re-ranked",
    "faithfulness",
    "chair",
    "detection",
)
"""All but oracle boxes, which make every box a detection of every class: pycocotools takes minutes for so many."""

SHARED = ("retrieval", "re-ranked", "faithfulness", "chair")

DETECTION = detection.Options(
    iou="bbox",
    rules="coco",
    engine="pycocotools",
    max_detections=100,
    recall_at=(1, 10, 100),
    area_edges=(1024, 9216),
    categories="all",
    prompts="bare",
    classes="own",
)

RESET = Path("/proc/self/clear_refs")


def memory(what: str) -> float:
    """`VmRSS` or `VmHWM` (its peak) of this process in MB."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e3


def shared_captions(images: int) -> Examples:
    """Images with one caption each, and the things that it names."""
    data = whole.with_objects(CAPTIONS)
    examples = (
        replace(
            data[number % CAPTIONS],
            id=f"i{number}",
            image=item(f"i{number}"),
            captions=data[number % CAPTIONS].captions[:1],
            caption_tags=(),
        )
        for number in range(images)
    )
    return replace(data, examples=tuple(examples), pool=())


def data_of(name: str) -> Examples:
    if name in SHARED:
        return shared_captions(EXAMPLES)
    if name == "corruptions":
        return whole.labelled(EXAMPLES)
    if name in whole.CASES:
        return whole.CASES[name].data(EXAMPLES)
    if name in finite.PROBES:
        return probes.probed()
    data = dense.dense_split(EXAMPLES)
    if name != "detection":
        return data
    return replace(data, examples=tuple(replace(example, regions=example.regions[:1]) for example in data))


def test_every_protocol_is_here():
    protocols = {name: of for name, (of, _, _) in finite.CASES.items()} | {"detection": "detection"}
    assert {protocols[name] for name in (*CASES, "oracle boxes")} == {*protocols.values()}


@pytest.mark.slow
@pytest.mark.skipif(not RESET.exists(), reason="the peak can be reset on Linux alone")
@pytest.mark.parametrize("name", CASES)
def test_memory_of_a_protocol(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    grown: list[float] = []

    def measured(protocol: ModuleType, encoder: Encoder, data: Examples, options: Any) -> Outcome:
        RESET.write_text("5")
        before = memory("VmRSS")
        found = predicted(protocol, encoder, data, options, BlockFolder(tmp_path, "{}", pytest.fail))
        outcome = outcome_from(protocol, found, data, options)
        grown.append(memory("VmHWM") - before)
        return outcome

    for module in (finite, whole, probes):
        monkeypatch.setattr(module, "outcome_of", measured)
    monkeypatch.setattr(probes, "TRAIN", EXAMPLES * 3 // 4)
    monkeypatch.setattr(probes, "TEST", EXAMPLES // 4)
    data = data_of(name)
    if name == "detection":
        measured(detection, finite.Detector(*[lambda _: np.zeros(1)] * 2), data, DETECTION)
    else:
        finite.CASES[name][1](finite.spoiled(name), data)
    assert grown[0] < (MOST_OF_DETECTION if name == "detection" else MOST)
