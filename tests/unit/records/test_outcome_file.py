import json

import numpy as np
import pytest

from sparc_bench.errors import UserError
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, SparseMean
from sparc_bench.records import outcome_file


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
    return outcome_file.read(tmp_path / "t.npz")


def test_round_trip(tmp_path, parts):
    content, dropped = outcome_file.pack(**parts)
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


def test_metrics_are_read_without_the_rest(tmp_path, parts):
    content, _ = outcome_file.pack(**parts)
    broken = content.replace(b"example/rank.npy", b"example/lost.npy")
    (tmp_path / "t.npz").write_bytes(broken)
    with pytest.raises(UserError, match="cannot be read"):
        outcome_file.read(tmp_path / "t.npz")
    found = outcome_file.read_metrics(tmp_path / "t.npz", ["local/top1", "no such metric"])
    assert list(found) == ["local/top1"]
    whole = stored(tmp_path, content).metrics["local/top1"]
    assert np.array_equal(found["local/top1"].sum_G, whole.sum_G)
    assert np.array_equal(found["local/top1"].count_G, whole.count_G)


def test_equal_outcomes_give_equal_files(parts):
    assert outcome_file.pack(**parts) == outcome_file.pack(**parts)


def test_integers_are_kept_small(parts):
    small = outcome_file._compact(np.arange(5.0))
    assert small.dtype == np.uint8
    assert outcome_file._compact(np.array([-1.0, 300.0])).dtype == np.int16
    assert outcome_file._compact(np.array([0.5])).dtype == np.float32
    assert outcome_file._compact(np.array([np.nan, 1.0])).dtype == np.float32
    assert outcome_file._compact(np.array([2.0**40])).tolist() == [2.0**40]


def test_what_is_too_large_goes_in_order(tmp_path, parts):
    rng = np.random.default_rng(1)
    without_rows = len(outcome_file.pack(**{**parts, "rows": {}})[0]) + 200
    assert outcome_file.pack(**parts, max_bytes=without_rows)[1] == ("rows",)
    parts["groups"] = {"class": {str(k): Mean(rng.random(50), np.ones(50)) for k in range(100)}}
    assert outcome_file.pack(**parts, max_bytes=without_rows)[1] == ("rows", "groups by class")
    content, dropped = outcome_file.pack(**parts, max_bytes=1)
    assert dropped == ("rows", "groups by class", "example arrays other than correct", "metric local/miou")
    outcome = stored(tmp_path, content)
    assert list(outcome.metrics) == ["local/top1"]
    assert list(outcome.examples) == ["correct"]
    assert outcome.groups == {}
    assert outcome.dropped == dropped


def test_arrays_that_are_not_by_cluster_survive(tmp_path):
    statistic = ClassMean.of_table(np.zeros((4, 2)), np.ones((4, 2)))
    content, _ = outcome_file.pack(
        ["a"] * 4, {"m": statistic}, {}, {"label": np.array(["x", "y", "x", "y"])}, {}, ["m"]
    )
    assert stored(tmp_path, content).examples["label"].tolist() == ["x", "y", "x", "y"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_damaged_files(tmp_path, content):
    with pytest.raises(UserError, match=r"cannot be read.*--force\."):
        stored(tmp_path, content)


def test_truncated_and_missing_files(tmp_path, parts):
    content, _ = outcome_file.pack(**parts)
    with pytest.raises(UserError, match="cannot be read"):
        stored(tmp_path, content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        outcome_file.read(tmp_path / "none.npz")


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", manifest=np.array({"a": 1}, dtype=object), ids=np.array(["a"]))
    with pytest.raises(UserError, match="cannot be read"):
        outcome_file.read(tmp_path / "p.npz")


def test_sparse_statistics_come_back(tmp_path):
    rng = np.random.default_rng(2)
    label, right = rng.integers(0, 4, 60), rng.random(60)
    groups = dict(zip("abcd", SparseMean.of_groups(right, label, np.arange(60), 60, 4), strict=True))
    macro = ClassMean.of(right, label, np.arange(60), 60, 4)
    ids = [f"photo {k}" for k in range(60)]
    content, dropped = outcome_file.pack(ids, {"macro": macro}, {"class": groups, "none": {}}, {}, {}, ["macro"])
    outcome = stored(tmp_path, content)
    assert not dropped
    assert outcome.metrics["macro"].value == pytest.approx(macro.value, abs=1e-7)
    assert outcome.metrics["macro"].clusters == 60
    assert list(outcome.groups["class"]) == list("abcd")
    for name, statistic in groups.items():
        assert outcome.groups["class"][name].value == pytest.approx(statistic.value, abs=1e-7)
        assert outcome.groups["class"][name].clusters == 60


def test_groups_that_are_no_means_are_kept_one_by_one(tmp_path):
    groups = {"a": IoU(np.ones((3, 1)), np.full((3, 1), 2.0)), "b": Mean(np.ones(3), np.ones(3))}
    outcome = stored(tmp_path, outcome_file.pack(["x"] * 3, {}, {"class": groups}, {}, {}, [])[0])
    assert {name: statistic.value for name, statistic in outcome.groups["class"].items()} == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("values", [np.arange(5000), np.repeat([3, 70000, 5], 2000), np.array([7, 300, -5])])
def test_integers_come_back_whether_kept_as_differences_or_not(tmp_path, values):
    examples = {"correct": np.ones(2), "other": values, "again": values, "real": values / 7}
    outcome = stored(tmp_path, outcome_file.pack(["x"], {}, {}, examples, {}, [])[0])
    for name in ("other", "again"):
        assert outcome.examples[name].tolist() == values.tolist()
        assert outcome.examples[name].dtype == values.dtype
    assert outcome.examples["real"] == pytest.approx(values / 7, rel=1e-6)


def test_equal_arrays_are_kept_once():
    noise = np.random.default_rng(3).integers(0, 60000, 4000)
    one = len(outcome_file.pack(["x"], {}, {}, {"a": noise}, {}, [])[0])
    two = len(outcome_file.pack(["x"], {}, {}, {"a": noise, "b": noise}, {}, [])[0])
    assert two < one + 200


def test_files_of_before_are_read(tmp_path):
    """As they were written until ids were compressed and statistics became sparse."""
    members = {
        "ids": np.array(["ä", "b"]),
        "metric/macro/sum_GC": np.array([[1, 0], [0, 0]], dtype=np.uint8),
        "metric/macro/count_GC": np.array([[1, 0], [0, 1]], dtype=np.uint8),
        "group/class/x/sum_G": np.array([1, 0], dtype=np.uint8),
        "group/class/x/count_G": np.array([1, 0], dtype=np.uint8),
        "example/correct": np.array([True, False]),
    }
    entries = {
        "metric": [{"names": ["macro"], "kind": "class_mean", "arrays": ["sum_GC", "count_GC"]}],
        "group": [{"names": ["class", "x"], "kind": "mean", "arrays": ["sum_G", "count_G"]}],
    }
    dtypes = {key: "|b1" if key.startswith("example") else "<f8" for key in members if key != "ids"}
    manifest = {"statistics": entries, "dtypes": dtypes, "dropped": []}
    np.savez_compressed(tmp_path / "old.npz", manifest=np.array(json.dumps(manifest)), **members)
    outcome = outcome_file.read(tmp_path / "old.npz")
    assert outcome.ids == ("ä", "b")
    assert (outcome.metrics["macro"].value, outcome.groups["class"]["x"].value) == (0.5, 1.0)
    assert outcome.examples["correct"].tolist() == [True, False]


@pytest.mark.slow
def test_all_of_imagenet_fits(tmp_path):
    """50,000 images in class folders, half of them right, and a table of 1,000 classes."""
    rng = np.random.default_rng(4)
    label = np.repeat(np.arange(1000), 50)
    number = np.concatenate([np.sort(part) for part in np.split(rng.permutation(50_000), 1000)])
    ids = [f"n{k * 7919 + 10**7:08d}/ILSVRC2012_val_{n:08d}.JPEG" for k, n in zip(label, number, strict=True)]
    top1, top5 = rng.random(50_000) < 0.5, rng.random(50_000) < 0.5
    predicted = np.where(top1, label, rng.integers(0, 1000, 50_000))
    first, clusters = top1.astype(float), np.arange(50_000)
    metrics = {
        "top1": Mean.of(first),
        "top5": Mean.of((top1 | top5).astype(float)),
        "mean_per_class": ClassMean.of(first, label, clusters, 50_000, 1000),
    }
    groups = dict(zip(map(str, range(1000)), SparseMean.of_groups(first, label, clusters, 50_000, 1000), strict=True))
    examples = {"correct": first, "predicted": predicted, "label": label}
    content, dropped = outcome_file.pack(ids, metrics, {"class": groups}, examples, {}, ["top1"])
    assert len(content) <= outcome_file.MAX_BYTES
    assert not dropped
    assert stored(tmp_path, content).ids == tuple(ids)


def test_statistics_outside_their_range_are_refused(tmp_path):
    for credit in (5.0, -1.0):
        content, _ = outcome_file.pack(["a", "b"], {"top1": Mean.of(np.full(2, credit))}, {}, {}, {}, ["top1"])
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        for read in (outcome_file.read, lambda file: outcome_file.read_metrics(file, ["top1"], file.read_bytes())):
            with pytest.raises(UserError, match=rf"x\.npz gives {credit:g} as top1, outside 0 to 1: .*--force"):
                read(path)
