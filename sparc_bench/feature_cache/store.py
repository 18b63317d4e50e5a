"""A store of tensor rows on disk under one key: immutable shards, written and read by any number of processes.

A row has a name (a text; a view's image, window and size) and a tensor in each of some columns ("global",
"patches:local", ...). A shard is one safetensors file with up to 1,024 rows or 64 MB, written whole or not at all under
a random name, so that no process waits for another; the first shard with a row's column wins. Shards are memory-mapped,
so that only requested rows are read; each column has a checksum, and what does not match is computed again.

Shapes: R rows.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparc_bench.errors import UserError
from sparc_bench.feature_cache import KEY_FILE
from sparc_bench.feature_cache.shard import DamagedShardError, RowBlock, open_shard, shard_bytes, shard_names
from sparc_bench.files.atomic import write_atomic

_STRIDE = 2**32
"""Factor of a row's place: number of its block x _STRIDE + index of the row in the block."""

SHARD_ROWS = 1024
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 60.0
"""Age at which a shard is written even if it is not full; a killed process loses at most these rows."""


class FeatureStore:
    """All rows of one key.

    Attributes:
        folder: folder of the shards and of `key.json`, which describes the key for a person.
        error: reason why rows could not be written (new rows are dropped from then on); empty without an error.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], say: Callable[[str], None] = lambda _sentence: None
    ) -> None:
        self.folder, self.error, self._say = folder, "", say
        self._about = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        self._read: set[str] = set()
        self._blocks: dict[int, RowBlock] = {}
        self._places: dict[str, dict[str, int]] = {}
        self._numbers = itertools.count()
        self._pending: dict[int, RowBlock] = {}
        self._waiting_since = 0.0

    def refresh(self) -> None:
        """Index the shards written by any process since the last call; delete damaged shards."""
        found = set(shard_names(self.folder))
        for name in sorted(found - self._read):
            try:
                block = open_shard(self.folder / name)
            except DamagedShardError:
                self._remove(self.folder / name)
                continue
            if block is not None:
                self._index(block)
        self._read |= found

    def check(self, columns: Collection[str], rows: Sequence[str]) -> None:
        """Compare these columns of the shards that hold these rows with their checksums; delete damaged shards.

        Before `lacks`: the rows of a deleted shard are lacking in all its columns.
        """
        for column in columns:
            held = self._places.get(column, {})
            for number in {held[row] // _STRIDE for row in rows if row in held}:
                block = self._blocks[number]
                if block.intact(column):
                    continue
                self._forget({number: block})
                if block.file is not None:
                    self._remove(block.file)

    def holds(self, column: str, row: str) -> bool:
        """Whether a row has a value in the column."""
        return row in self._places.get(column, ())

    def lacks(self, column: str, rows: Sequence[str]) -> list[int]:
        """Indices of the rows that have no value in the column."""
        held = self._places.get(column, {})
        return [place for place, row in enumerate(rows) if row not in held]

    def read(self, column: str, rows: Sequence[str], beside: str | None = None) -> Tensor:
        """A copy of the column in the order of `rows`; with `beside`, from the blocks that hold that other column."""
        held = self._places[beside or column]
        place_R = np.fromiter(map(held.__getitem__, rows), np.int64, len(rows))
        block_R, index_R = np.divmod(place_R, _STRIDE)
        first = self._blocks[block_R[0]].columns[column]
        # torch's memory is aligned and a mapped file is not: sums of equal numbers could round differently
        found = torch.empty(len(rows), *first.shape[1:], dtype=first.dtype)
        if (np.diff(place_R) == 1).all():
            return found.copy_(first[index_R[0] : index_R[0] + len(rows)])  # consecutive rows of one block
        for number in np.unique(block_R):
            positions = np.flatnonzero(block_R == number)
            found[positions] = self._blocks[number].columns[column][index_R[positions]]
        return found

    def add(self, rows: Sequence[str], columns: Mapping[str, Tensor]) -> None:
        """Add rows; they can be read immediately and are written when a shard is full."""
        if self.error or not rows or not columns:
            return
        whole = RowBlock(tuple(rows), columns)
        at_once = max(1, min(SHARD_ROWS, SHARD_BYTES * len(rows) // max(1, whole.bytes)))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            block = RowBlock(whole.rows[part], {name: column[part] for name, column in columns.items()})
            if self._pending and not self._fits(block):
                self.flush()
            if not self._pending:
                self._waiting_since = time.monotonic()
            self._pending[self._index(block)] = block
        if time.monotonic() - self._waiting_since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write pending rows; where the disk refuses them, set `error` and keep the rows in memory."""
        if not self._pending or self.error:
            return
        pending = list(self._pending.values())
        rows = tuple(row for block in pending for row in block.rows)
        columns = {name: torch.cat([block.columns[name] for block in pending]) for name in pending[0].columns}
        name = f"{uuid.uuid4().hex}.safetensors"
        try:
            if not (self.folder / KEY_FILE).is_file():
                write_atomic(self.folder / KEY_FILE, self._about.encode())
            write_atomic(self.folder / name, shard_bytes(rows, columns))
        except UserError as error:
            self.error = getattr(error.__cause__, "strerror", None) or str(error)
            return
        written = open_shard(self.folder / name, written_here=True)
        self._read.add(name)
        if written is not None:  # read from the file from now on
            self._forget(self._pending)
            self._index(written)
        self._pending = {}

    def free_bytes(self) -> int:
        """Free bytes on the disk of the folder."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def touch(self) -> None:
        """Set the time of last use to now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / KEY_FILE)

    def _remove(self, shard: Path) -> None:
        with contextlib.suppress(OSError):
            shard.unlink(missing_ok=True)
        self._say(f"Damaged features in {self.folder} are deleted, and computed again where they are needed.")

    def _fits(self, block: RowBlock) -> bool:
        together = [*self._pending.values(), block]
        return (
            block.layout == together[0].layout
            and sum(len(each.rows) for each in together) <= SHARD_ROWS
            and sum(each.bytes for each in together) <= SHARD_BYTES
        )

    def _index(self, block: RowBlock) -> int:
        """Index the rows of a block that no other block holds; returns the number of the block."""
        number = next(self._numbers)
        self._blocks[number] = block
        places = range(number * _STRIDE, number * _STRIDE + len(block.rows))
        new = dict(zip(reversed(block.rows), reversed(places), strict=True))  # the first of repeated rows wins
        for column in block.columns:
            held = self._places.setdefault(column, {})
            held.update(new if held.keys().isdisjoint(new) else {row: new[row] for row in new.keys() - held.keys()})
        return number

    def _forget(self, blocks: Mapping[int, RowBlock]) -> None:
        for number, block in blocks.items():
            for column in block.columns:
                held = self._places[column]
                for row in block.rows:
                    if held.get(row, -1) // _STRIDE == number:
                        del held[row]
            del self._blocks[number]
