import numpy as np
import pytest

from sparc_bench import stored_outcome
from sparc_bench.errors import UserError
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    mean, iou = Mean(rng.random(50), np.ones(50)), IoU(np.ones((50, 3)), np.full((50, 3), 4.0))
    return {
        "ids": [f"bild/ä{i}" for i in range(50)],
        "metrics": {"local/top1": mean, "local/miou": iou},
        "groups": {"class": {"fire/hydrant": Mean(np.ones(50), np.full(50, 2.0))}},
        "examples": {"correct": rng.random(50) < 0.5, "rank": rng.integers(0, 70000, 50)},
        "rows": {"noise": rng.random(5000)},
        "headline": ["local/top1"],
    }


def stored(tmp_path, content):
    (tmp_path / "t.npz").write_bytes(content)
    return stored_outcome.read(tmp_path / "t.npz")


def test_round_trip(tmp_path, parts):
    content, dropped = stored_outcome.pack(**parts)
    outcome = stored(tmp_path, content)
    assert dropped == outcome.dropped == ()
    assert outcome.ids == tuple(parts["ids"])
    assert outcome.metrics.keys() == parts["metrics"].keys()
    assert isinstance(outcome.metrics["local/miou"], IoU)
    assert outcome.metrics["local/miou"].intersection_GC.dtype == np.float64
    assert outcome.metrics["local/top1"].value == pytest.approx(parts["metrics"]["local/top1"].value, abs=1e-7)
    assert outcome.groups["class"]["fire/hydrant"].value == 0.5
    assert np.array_equal(outcome.examples["correct"], parts["examples"]["correct"])
    assert np.array_equal(outcome.examples["rank"], parts["examples"]["rank"])
    assert outcome.examples["rank"].dtype == parts["examples"]["rank"].dtype


def test_equal_outcomes_give_equal_files(parts):
    assert stored_outcome.pack(**parts) == stored_outcome.pack(**parts)


def test_integers_are_kept_small(parts):
    small = stored_outcome._compact(np.arange(5.0))
    assert small.dtype == np.uint8
    assert stored_outcome._compact(np.array([-1.0, 300.0])).dtype == np.int16
    assert stored_outcome._compact(np.array([0.5])).dtype == np.float32
    assert stored_outcome._compact(np.array([np.nan, 1.0])).dtype == np.float32
    assert stored_outcome._compact(np.array([2.0**40])).tolist() == [2.0**40]


def test_what_is_too_large_goes_in_order(tmp_path, parts):
    rng = np.random.default_rng(1)
    without_rows = len(stored_outcome.pack(**{**parts, "rows": {}})[0]) + 200
    assert stored_outcome.pack(**parts, max_bytes=without_rows)[1] == ("rows",)
    parts["groups"] = {"class": {str(k): Mean(rng.random(50), np.ones(50)) for k in range(100)}}
    assert stored_outcome.pack(**parts, max_bytes=without_rows)[1] == ("rows", "groups by class")
    content, dropped = stored_outcome.pack(**parts, max_bytes=1)
    assert dropped == ("rows", "groups by class", "example arrays other than correct", "metric local/miou")
    outcome = stored(tmp_path, content)
    assert list(outcome.metrics) == ["local/top1"]
    assert list(outcome.examples) == ["correct"]
    assert outcome.groups == {}
    assert outcome.dropped == dropped


def test_arrays_that_are_not_by_cluster_survive(tmp_path):
    statistic = ClassMean(np.zeros((4, 2)), np.ones((4, 2)))
    content, _ = stored_outcome.pack(
        ["a"] * 4, {"m": statistic}, {}, {"label": np.array(["x", "y", "x", "y"])}, {}, ["m"]
    )
    assert stored(tmp_path, content).examples["label"].tolist() == ["x", "y", "x", "y"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_damaged_files(tmp_path, content):
    with pytest.raises(UserError, match=r"cannot be read.*--force\."):
        stored(tmp_path, content)


def test_truncated_and_missing_files(tmp_path, parts):
    content, _ = stored_outcome.pack(**parts)
    with pytest.raises(UserError, match="cannot be read"):
        stored(tmp_path, content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        stored_outcome.read(tmp_path / "none.npz")


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", manifest=np.array({"a": 1}, dtype=object), ids=np.array(["a"]))
    with pytest.raises(UserError, match="cannot be read"):
        stored_outcome.read(tmp_path / "p.npz")
