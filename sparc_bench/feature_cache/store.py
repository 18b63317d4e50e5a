"""Rows of tensors on disk, under one key: shards that never change, added and read by any number of processes.

A row is named by a string (a text; an image's id, crop and size) and has a tensor in each of some columns ("global",
"patches:local", ...). A shard is one safetensors file with up to 1,024 rows or 64 MB, written whole or not at all under
a name of its own, so that no process waits for another; the first shard that has a row's column wins. Shards are
memory-mapped: what is not asked for is not read.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparc_bench.errors import UserError
from sparc_bench.feature_cache import KEY_FILE, ROWS
from sparc_bench.files.atomic import write_atomic

_STRIDE = 2**32
"""A row's place is the number of its block times this, plus its index there."""

SHARD_ROWS = 1024
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 60.0
"""What a killed process loses at most: rows are written when a shard is full or this old."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows: of a shard (memory-mapped), or not yet written.

    Attributes:
        rows: their names.
        columns: column -> R first, on the CPU.
    """

    rows: tuple[str, ...]
    columns: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """Of all columns."""
        return sum(column.numel() * column.element_size() for column in self.columns.values())

    @property
    def layout(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape of a row and dtype of each column: blocks of one layout can share a shard."""
        return {name: (column.shape[1:], column.dtype) for name, column in self.columns.items()}


class FeatureStore:
    """The rows of one key.

    Attributes:
        folder: with one file per shard and `key.json`, which says for a person what lies here.
        error: why rows could not be written (they are dropped from then on), or None.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.error = folder, ""
        self._about = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        self._read: set[str] = set()
        self._blocks: dict[int, Block] = {}
        self._places: dict[str, dict[str, int]] = {}
        self._numbers = itertools.count()
        self._pending: dict[int, Block] = {}
        self._waiting_since = 0.0

    def refresh(self) -> None:
        """Take in the shards that were written since the last look, by whatever process; a damaged one is deleted."""
        found = set(shard_names(self.folder))
        for name in sorted(found - self._read):
            block = open_shard(self.folder / name)
            if block is not None:
                self._index(block)
        self._read |= found

    def holds(self, column: str, row: str) -> bool:
        """Whether a row has the column."""
        return row in self._places.get(column, ())

    def lacks(self, column: str, rows: Sequence[str]) -> list[int]:
        """Which of some rows do not have the column, by their place among them."""
        held = self._places.get(column, {})
        return [place for place, row in enumerate(rows) if row not in held]

    def read(self, column: str, rows: Sequence[str], beside: str | None = None) -> Tensor:
        """The column of some rows that hold it, copied, in this order; with `beside`, from where that column is."""
        held = self._places[beside or column]
        place_R = np.fromiter(map(held.__getitem__, rows), np.int64, len(rows))
        block_R, index_R = np.divmod(place_R, _STRIDE)
        first = self._blocks[block_R[0]].columns[column]
        # torch's own memory is aligned, a mapped file is not: sums of equal numbers could round differently
        found = torch.empty(len(rows), *first.shape[1:], dtype=first.dtype)
        if (np.diff(place_R) == 1).all():
            return found.copy_(first[index_R[0] : index_R[0] + len(rows)])  # as they were added
        for number in np.unique(block_R):
            positions = np.flatnonzero(block_R == number)
            found[positions] = self._blocks[number].columns[column][index_R[positions]]
        return found

    def add(self, rows: Sequence[str], columns: Mapping[str, Tensor]) -> None:
        """Keep rows: they can be read at once, and are written when a shard is full."""
        if self.error or not rows or not columns:
            return
        whole = Block(tuple(rows), columns)
        at_once = max(1, min(SHARD_ROWS, SHARD_BYTES * len(rows) // max(1, whole.bytes)))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            block = Block(whole.rows[part], {name: column[part] for name, column in columns.items()})
            if self._pending and not self._fits(block):
                self.flush()
            if not self._pending:
                self._waiting_since = time.monotonic()
            self._pending[self._index(block)] = block
        if time.monotonic() - self._waiting_since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits; where that is not possible `error` says why, and the rows stay in memory."""
        if not self._pending or self.error:
            return
        pending = list(self._pending.values())
        rows = tuple(row for block in pending for row in block.rows)
        columns = {name: torch.cat([block.columns[name] for block in pending]) for name in pending[0].columns}
        name = f"{uuid.uuid4().hex}.safetensors"
        try:
            if not (self.folder / KEY_FILE).is_file():
                write_atomic(self.folder / KEY_FILE, self._about.encode())
            write_atomic(self.folder / name, save(columns, {ROWS: json.dumps(rows, ensure_ascii=False)}))
        except UserError as error:
            self.error = getattr(error.__cause__, "strerror", None) or str(error)
            return
        written = open_shard(self.folder / name)
        self._read.add(name)
        if written is not None:  # from now on in the file, no longer in memory
            self._forget(self._pending)
            self._index(written)
        self._pending = {}

    def free_bytes(self) -> int:
        """On the disk that the folder lies on, or will."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def touch(self) -> None:
        """Note that it was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / KEY_FILE)

    def _fits(self, block: Block) -> bool:
        together = [*self._pending.values(), block]
        return (
            block.layout == together[0].layout
            and sum(len(each.rows) for each in together) <= SHARD_ROWS
            and sum(each.bytes for each in together) <= SHARD_BYTES
        )

    def _index(self, block: Block) -> int:
        """Take in the rows of a block, except where another holds them already; its number."""
        number = next(self._numbers)
        self._blocks[number] = block
        places = range(number * _STRIDE, number * _STRIDE + len(block.rows))
        new = dict(zip(reversed(block.rows), reversed(places), strict=True))  # of a repeated row the first
        for column in block.columns:
            held = self._places.setdefault(column, {})
            held.update(new if held.keys().isdisjoint(new) else {row: new[row] for row in new.keys() - held.keys()})
        return number

    def _forget(self, blocks: Mapping[int, Block]) -> None:
        for number, block in blocks.items():
            for column in block.columns:
                held = self._places[column]
                for row in block.rows:
                    if held.get(row, -1) // _STRIDE == number:
                        del held[row]
            del self._blocks[number]


def shard_names(folder: Path) -> list[str]:
    """Names of a folder's shards; none where there is no such folder."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [name for name in names if name.endswith(".safetensors") and not name.startswith(".")]


def open_shard(path: Path) -> Block | None:
    """A shard, memory-mapped; None where it is gone or cannot be read, or was damaged and is deleted now."""
    try:
        with safe_open(path, framework="pt") as file:
            rows = tuple(json.loads(file.metadata()[ROWS]))
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if any(len(column) != len(rows) for column in columns.values()):
            raise ValueError("another number of rows than names")
    except OSError:
        return None
    except (SafetensorError, ValueError, KeyError, TypeError):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return Block(rows, columns)
