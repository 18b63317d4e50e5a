"""A folder of blocks: whole or not at all, checked, of one evaluation alone."""

import errno
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from sparc_bench import stop_signals
from sparc_bench.blocks import block_store
from sparc_bench.blocks.block_store import INPUTS, BlockFolder, BlocksInMemory, StoredBlocks
from sparc_bench.blocks.predicted import predicted
from sparc_bench.dataset import Example
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.files.atomic import draft_path
from sparc_bench.protocol import Block
from tests.toys.encoders import item, split_of

BLOCK = Block(np.array([4, 2]), {"local/credit": np.array([0.5, 1.0]), "given": np.array(["a cat", "é"])})


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(tmp_path, said):
    return BlockFolder(tmp_path / "task.partial", '{"task": "a"}', said.append)


def test_a_block_comes_back(folder, said):
    folder.claim()
    assert folder.read(7) is None
    assert not folder.folder.exists()
    folder.write(7, BLOCK)
    found = folder.read(7)
    np.testing.assert_array_equal(found.index_N, BLOCK.index_N)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        "local/credit": [0.5, 1.0],
        "given": ["a cat", "é"],
    }
    assert found.arrays["local/credit"].dtype == np.float64
    assert said == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_block_counts_as_missing_and_is_named(folder, said, damage):
    folder.write(0, BLOCK)
    file = folder.folder / "000000.npz"
    content = bytearray(file.read_bytes())
    place = content.index(np.array([0.5, 1.0]).tobytes())
    content[place] ^= 1
    file.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    assert folder.read(0) is None
    assert said == [f"{file} is damaged: this block is computed again."]
    assert not file.exists()


def test_blocks_of_other_inputs_are_removed(folder, said):
    folder.write(0, BLOCK)
    same = BlockFolder(folder.folder, '{"task":"a"}', said.append)
    same.claim()
    assert same.read(0) is not None
    other = BlockFolder(folder.folder, '{"task": "b"}', said.append)
    other.claim()
    assert other.read(0) is None
    assert said == [f"{folder.folder} holds blocks of an evaluation with other inputs: starting anew."]


def test_a_row_within_goes_with_the_folder(folder):
    within = folder.inner("untrained")
    within.write(0, BLOCK)
    assert within.read(0) is not None
    assert folder.read(0) is None
    folder.claim()
    folder.remove()
    folder.remove()
    assert not folder.folder.exists()


def test_what_cannot_be_written_is_one_sentence(tmp_path, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        BlockFolder(tmp_path / "file", "{}", said.append).write(0, BLOCK)


def test_stored_blocks_are_a_sequence(folder):
    for number in range(3):
        folder.write(number, Block(np.array([number]), {}))
    blocks = StoredBlocks(folder, 3)
    assert [int(block.index_N[0]) for block in blocks] == [0, 1, 2]
    assert [int(block.index_N[0]) for block in blocks[1:]] == [1, 2]
    with pytest.raises(IndexError):
        blocks[3]
    (folder.folder / "000001.npz").unlink()
    with pytest.raises(UserError, match=r"Block 1 of 3 has gone .* start the same command again"):
        blocks[1]


def test_the_inputs_lie_beside(folder):
    folder.write(0, BLOCK)
    assert (folder.folder / INPUTS).read_text() == '{"task": "a"}'


def test_a_full_disk_is_told_before_an_array_is_mapped(folder, monkeypatch):
    def full(file, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(block_store, "reserve", full)
    with pytest.raises(UserError, match=r"global\.npy"):
        folder.scratch("global", (2, 3), np.dtype(np.float32))


def test_drafts_of_killed_processes_go_and_those_of_others_stay(folder):
    folder.write(0, BLOCK)
    killed = draft_path(folder.folder / "000001.npz")
    dead = killed.with_name(killed.name.replace(f"-{os.getpid()}-", "-99999999-"))
    for file in (killed, dead):
        file.write_bytes(b"half a block")
    folder.claim()
    assert killed.exists()
    assert not dead.exists()
    assert folder.read(0) is not None


def test_a_stop_says_how_many_blocks_are_kept(folder):
    def stopping(encoder, work, options):
        for part in work:
            if part.index_N[0] == 4:
                stop_signals.raise_stopped(signal.SIGTERM)
            yield part.block()

    protocol = SimpleNamespace(predict=stopping)
    data = split_of([Example(f"{i}", item(f"{i}")) for i in range(9)])
    with pytest.raises(StoppedError) as stopped:
        predicted(protocol, SimpleNamespace(paths={}), data, None, folder, at_once=2)
    assert str(stopped.value) == (
        f"Stopped by SIGTERM: 2 of 5 blocks are kept in {folder.folder}, and the same command goes on from there."
    )
    assert stopped.value.code == 143
    with pytest.raises(StoppedError, match="what is finished is kept"):
        predicted(protocol, SimpleNamespace(paths={}), data, None, BlocksInMemory(), at_once=2)
