import errno
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sparc_bench.feature_cache import shard as shard_module
from sparc_bench.feature_cache import store as stores
from sparc_bench.feature_cache.store import FeatureStore


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features" / "key"


def rows_of(count, first=0):
    return [f"row {number}" for number in range(first, first + count)]


def filled(folder, count, first=0, **columns):
    store = FeatureStore(folder, {"model": "m"})
    columns = columns or {"global": torch.arange(first, first + count, dtype=torch.float32)[:, None].repeat(1, 3)}
    store.add(rows_of(count, first), columns)
    store.flush()
    assert not store.error
    return store


def fresh(folder):
    store = FeatureStore(folder, {"model": "m"})
    store.refresh()
    return store


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_rows_come_back_in_any_order(folder):
    filled(folder, 5)
    filled(folder, 4, first=5)
    store = fresh(folder)
    assert all(store.holds("global", row) for row in rows_of(9))
    assert not store.holds("global", "row 9")
    assert not store.holds("patches:local", "row 1")
    assert store.read("global", ["row 7", "row 0", "row 7", "row 3"])[:, 0].tolist() == [7, 0, 7, 3]


def test_which_rows_are_lacking(folder):
    store = filled(folder, 3)
    assert store.lacks("global", ["row 7", "row 1", "row 3"]) == [0, 2]
    assert store.lacks("patches:local", rows_of(2)) == [0, 1]


def test_the_first_of_equal_rows_wins_and_keeps_winning_when_it_is_written(folder):
    store = FeatureStore(folder, {})
    store.add(["a", "b", "a"], {"global": torch.tensor([[0.0], [1.0], [2.0]])})
    store.add(["b", "c"], {"global": torch.tensor([[3.0], [4.0]])})
    for _ in range(2):
        assert store.read("global", ["a", "b", "c", "a"])[:, 0].tolist() == [0, 1, 4, 0]
        store.flush()
    assert fresh(folder).read("global", ["c", "b", "a"])[:, 0].tolist() == [4, 1, 0]


def test_the_file_says_what_it_is(folder):
    filled(folder, 2)
    assert json.loads((folder / "key.json").read_text()) == {"model": "m"}
    assert sorted(file.name for file in folder.iterdir() if not file.name.endswith(".safetensors")) == ["key.json"]
    with safe_open(shards(folder)[0], framework="pt") as file:
        assert json.loads(file.metadata()["rows"]) == ["row 0", "row 1"]


def test_columns_of_a_row_may_lie_in_several_shards(folder):
    filled(folder, 3)
    filled(folder, 3, **{"patches:local": torch.ones(3, 4, 2), "grid": torch.full((3, 2), 9)})
    filled(folder, 3, **{"global": torch.zeros(3, 3), "grid": torch.zeros(3, 2, dtype=torch.int64)})
    store = fresh(folder)
    assert store.read("patches:local", rows_of(3)).shape == (3, 4, 2)
    assert (store.read("grid", rows_of(3), beside="patches:local") == 9).all()


def test_shards_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(stores, "SHARD_ROWS", 4)
    store = filled(folder, 10)
    assert sorted(len(stores.open_shard(file).rows) for file in shards(folder)) == [2, 4, 4]
    monkeypatch.setattr(stores, "SHARD_ROWS", 1024)
    monkeypatch.setattr(stores, "SHARD_BYTES", 4 * 3 * 5)
    store.add(rows_of(11, first=10), {"global": torch.ones(11, 3)})
    store.flush()
    assert sorted(len(stores.open_shard(file).rows) for file in shards(folder)) == [1, 2, 4, 4, 5, 5]
    assert fresh(folder).read("global", rows_of(21)).shape == (21, 3)


def test_small_additions_share_a_shard(folder):
    store = FeatureStore(folder, {})
    for first in range(20):
        store.add(rows_of(1, first), {"global": torch.full((1, 2), float(first))})
    assert not shards(folder)
    assert store.read("global", rows_of(20))[:, 0].tolist() == list(range(20))
    store.flush()
    assert len(shards(folder)) == 1
    assert store.read("global", rows_of(20))[:, 0].tolist() == list(range(20))


def test_another_layout_begins_another_shard(folder):
    store = FeatureStore(folder, {})
    store.add(rows_of(2), {"global": torch.ones(2, 3)})
    store.add(rows_of(2, 2), {"global": torch.ones(2, 3), "grid": torch.ones(2, 2)})
    store.flush()
    assert len(shards(folder)) == 2


def test_rows_are_written_when_they_have_waited(folder, monkeypatch):
    store = FeatureStore(folder, {})
    store.add(rows_of(1), {"global": torch.ones(1, 3)})
    assert not shards(folder)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + stores.SHARD_SECONDS + 1)
    store.add(rows_of(1, 1), {"global": torch.ones(1, 3)})
    assert len(shards(folder)) == 1


def test_what_other_processes_add_is_seen(folder):
    store = fresh(folder)
    filled(folder, 2)
    assert not store.holds("global", "row 1")
    store.refresh()
    assert store.holds("global", "row 1")


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "nameless", "no checksums", "a row renamed"])
def test_a_damaged_shard_is_deleted(folder, damage):
    filled(folder, 3)
    filled(folder, 3, first=3)
    broken = next(file for file in shards(folder) if "row 0" in stores.open_shard(file).rows)
    whole = broken.read_bytes()
    damaged = {
        "truncated": whole[:-7],
        "empty": b"",
        "noise": b"\xff" * 64,
        "nameless": whole.replace(b'"rows"', b'"rowz"'),
        "no checksums": whole.replace(b'"checksums"', b'"chicksums"'),
        "a row renamed": whole.replace(b"row 1", b"row 8"),
    }
    broken.write_bytes(damaged[damage])
    said = []
    store = FeatureStore(folder, {"model": "m"}, said.append)
    store.refresh()
    assert not broken.exists()
    assert not store.holds("global", "row 0")
    assert store.read("global", rows_of(3, 3))[:, 0].tolist() == [3, 4, 5]
    assert said == [f"Damaged features in {folder} are deleted, and computed again where they are needed."]


CHANGES = {
    "negated": lambda column: -column,
    "half zeroed": lambda column: column * (torch.arange(len(column)) % 2).view(-1, *[1] * (column.ndim - 1)),
    "reversed": lambda column: column.flip(0).contiguous(),
    "another shape": lambda column: column.reshape(len(column), -1, 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("width", [4, 2**14], ids=["small", "large"])
def test_other_values_than_were_written_are_deleted(folder, change, width):
    other = "patches:p"
    filled(folder, 6, **{"global": torch.rand(6, width), other: torch.rand(6, width)})
    (shard,) = shards(folder)
    with safe_open(shard, framework="pt") as file:
        metadata, columns = file.metadata(), {n: file.get_tensor(n).clone() for n in ("global", other)}
    save_file({**columns, "global": CHANGES[change](columns["global"])}, shard, metadata)
    said = []
    store = FeatureStore(folder, {"model": "m"}, said.append)
    store.refresh()
    store.check(["global"], rows_of(2))
    assert not shard.exists()
    assert store.lacks("global", rows_of(6)) == store.lacks(other, rows_of(6)) == list(range(6))
    assert len(said) == 1
    store.check(["global", other], rows_of(6))
    store.add(rows_of(6), columns)
    assert torch.equal(store.read("global", rows_of(6)), columns["global"])


def test_a_large_column_is_compared_once_and_only_if_it_is_needed(folder, monkeypatch):
    filled(folder, 4, **{"global": torch.rand(4, 4), "patches:p": torch.rand(4, 2**15)})
    checked = []
    plain = shard_module._checksum
    monkeypatch.setattr(shard_module, "_checksum", lambda column: checked.append(column.shape[1]) or plain(column))
    store = fresh(folder)
    store.check(["global"], rows_of(4))
    assert checked == [4]
    for _ in range(2):
        store.check(["patches:p", "absent"], rows_of(4))
    assert checked == [4, 2**15]


def test_a_reader_keeps_what_it_has_when_the_cache_is_cleared(folder):
    filled(folder, 3)
    store = fresh(folder)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    store.refresh()
    assert store.read("global", rows_of(3))[:, 0].tolist() == [0, 1, 2]
    store.add(rows_of(1, 3), {"global": torch.ones(1, 3)})
    store.flush()
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = FeatureStore(tmp_path / "file" / "key", {})
    store.refresh()
    store.add(rows_of(2), {"global": torch.ones(2, 3)})
    store.flush()
    assert store.error == os.strerror(errno.ENOTDIR)
    assert store.read("global", rows_of(2)).tolist() == [[1, 1, 1]] * 2
    store.add(rows_of(2, 2), {"global": torch.ones(2, 3)})
    assert not store.holds("global", "row 3")
    store.flush()
    store.touch()
    assert store.free_bytes() > 0


def test_a_full_disk_leaves_no_draft(folder, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    store = FeatureStore(folder, {})
    store.add(rows_of(2), {"global": torch.ones(2, 3)})
    store.flush()
    assert store.error == os.strerror(errno.ENOSPC)
    assert list(folder.iterdir()) == []


def test_shards_are_mapped_not_read(folder):
    rows = 64
    filled(folder, rows, **{"patches:p": torch.zeros(rows, 2**16)})

    status = Path("/proc/self/statm")

    def resident():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    if not status.exists():
        pytest.skip("only Linux says how much memory is resident")
    before = resident()
    store = fresh(folder)
    store.read("patches:p", ["row 5"])
    assert resident() - before < 2**16 * 4 * 16
    assert store.read("patches:p", rows_of(rows)).shape == (rows, 2**16)
