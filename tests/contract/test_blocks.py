"""For every protocol: broken off and gone on with, or shared by several processes, the outcome is that of one go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sparc_bench.blocks.block_store import BlockFolder, BlocksInMemory, BlockStore
from sparc_bench.blocks.kept_encoder import KeptEncoder
from sparc_bench.blocks.predicted import outcome_from, predicted
from sparc_bench.blocks.ranks import Alone
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.protocol import Block, Outcome
from tests.contract import test_finite as finite
from tests.contract import test_image_protocols as whole
from tests.contract import test_probes as probes

AT_ONCE = 3
PAIRWISE = "retrieval by pairs"
NAMES = [*finite.CASES, PAIRWISE]


class BrokenOff(Exception):
    """Stands for the end of a process."""


class Breaking(BlockFolder):
    """A folder whose process ends at the third block."""

    def write(self, number: int, block: Block) -> None:
        if number == 2:
            raise BrokenOff
        super().write(number, block)


class Threads:
    """Ranks that are threads (see `sparc_bench.blocks.ranks.Ranks`)."""

    device = "cpu"

    def __init__(self, rank: int, world: int, meeting: threading.Barrier, told: list[Any]) -> None:
        self.rank, self.world, self._meeting, self._told = rank, world, meeting, told

    def gather(self, value: Any) -> list[Any]:
        self._told[self.rank] = value
        self._meeting.wait(30)
        found = list(self._told)
        self._meeting.wait(30)
        return found

    def together(self, work: Callable[[], Any]) -> Any:
        result = work()
        self.gather(None)
        return result

    def heed(self) -> None:
        pass


def run(name: str, monkeypatch: pytest.MonkeyPatch, way: Callable[..., Outcome]) -> Outcome:
    """The case's outcome, where `way` does what `outcome_of` does."""
    for module in (finite, whole, probes):
        monkeypatch.setattr(module, "outcome_of", way)
    _, scored, data = finite.CASES["retrieval" if name == PAIRWISE else name]
    by_pairs = name in ("re-ranked", PAIRWISE)
    return scored(finite.encoder(prompt_ensemble="scores" if by_pairs else "embeddings"), data)


def in_one_go(protocol: ModuleType, encoder: Encoder, data: Examples, options: Any) -> Outcome:
    found = predicted(protocol, encoder, data, options, BlocksInMemory(), AT_ONCE)
    return outcome_from(protocol, found, data, options)


def equal(a: Outcome, b: Outcome) -> bool:
    for each, other in ((a.metrics, b.metrics), *((a.groups[name], b.groups[name]) for name in a.groups)):
        assert list(each) == list(other)
        for metric, statistic in each.items():
            ours, theirs = statistic.arrays(), other[metric].arrays()
            assert all(np.array_equal(ours[key], theirs[key], equal_nan=True) for key in ours), metric
    for kind in ("examples", "rows"):
        for name, array in getattr(a, kind).items():
            np.testing.assert_array_equal(array, getattr(b, kind)[name])
    return (a.ties, a.counts, a.notes, str(a.reference_rows)) == (b.ties, b.counts, b.notes, str(b.reference_rows))


@pytest.mark.parametrize("name", NAMES)
def test_broken_off_and_gone_on_with(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls: list[int] = []

    def in_two_goes(protocol: ModuleType, encoder: Encoder, data: Examples, options: Any) -> Outcome:
        with pytest.raises(BrokenOff):
            predicted(protocol, encoder, data, options, Breaking(tmp_path, "{}", pytest.fail), AT_ONCE)
        calls.append(len(list(tmp_path.glob("*.npz"))))
        store = BlockFolder(tmp_path, "{}", pytest.fail)
        store.claim()
        found = predicted(protocol, encoder, data, options, store, AT_ONCE)
        return outcome_from(protocol, found, data, options)

    assert equal(run(name, monkeypatch, in_two_goes), run(name, monkeypatch, in_one_go))
    assert calls == [2]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shared_by_several(name: str, world: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def together(protocol: ModuleType, encoder: Encoder, data: Examples, options: Any) -> Outcome:
        meeting, told, found = threading.Barrier(world), [None] * world, {}

        def one(rank: int) -> None:
            store = BlockFolder(tmp_path, "{}", pytest.fail)
            ranks = Threads(rank, world, meeting, told)
            found[rank] = predicted(protocol, encoder, data, options, store, AT_ONCE, ranks)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcome_from(protocol, found[0], data, options)

    assert equal(run(name, monkeypatch, together), run(name, monkeypatch, in_one_go))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_scored_without_the_model(name: str, monkeypatch: pytest.MonkeyPatch):
    def from_blocks(protocol: ModuleType, encoder: Encoder, data: Examples, options: Any) -> Outcome:
        store: BlockStore = BlocksInMemory()
        predicted(protocol, encoder, data, options, store, AT_ONCE, Alone())
        found = predicted(protocol, encoder, data, options, store, AT_ONCE)
        if isinstance(found, KeptEncoder):
            found.inner.stream = pytest.fail  # type: ignore[method-assign]  # images come from the blocks
        return outcome_from(protocol, found, data, options)

    assert equal(run(name, monkeypatch, from_blocks), run(name, monkeypatch, in_one_go))
