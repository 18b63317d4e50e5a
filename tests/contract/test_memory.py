"""20,000 examples take little memory, beside the data themselves and the blocks, which lie on disk."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparc_bench.blocks.block_store import BlockFolder
from sparc_bench.blocks.predicted import outcome_from, predicted
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.protocol import Outcome
from tests.contract import test_dense_protocols as dense
from tests.contract import test_finite as finite
from tests.contract import test_image_protocols as whole
from tests.contract import test_probes as probes

EXAMPLES = 20_000
MOST = 100
"""MB above what the process holds before. Measured: 10 to 30."""

CASES = (
    "classification",
    "caption_choice",
    "object_presence",
    "minimal_pairs",
    "regions",
    "segmentation",
    "word grounding",
    "k nearest neighbours",
)
"""The others hold by design: retrieval the scores of all images with all captions, faithfulness and CHAIR those of 64
images, oracle boxes those of all boxes with all classes, a linear probe what scikit-learn copies of the vectors."""

RESET = Path("/proc/self/clear_refs")


def memory(what: str) -> float:
    """`VmRSS` or `VmHWM` (its peak) of this process in MB."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e3


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
    _, run, _ = finite.CASES[name]
    if name in whole.CASES:
        data = whole.CASES[name].data(EXAMPLES)
    else:
        data = dense.dense_split(EXAMPLES) if name in finite.DENSE else probes.probed()
    run(finite.encoder(), data)
    assert grown[0] < MOST
