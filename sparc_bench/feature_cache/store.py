"""Rows of tensors on disk, under one key: shards that never change, added and read by any number of processes.

A row is named by a string (a text; an image's id, crop and size) and has a tensor in each of some columns ("global",
"patches:local", ...). A shard is one safetensors file with up to 1,024 rows or 64 MB, written whole or not at all under
a name of its own, so that no process waits for another; the first shard that has a row's column wins. Shards are
memory-mapped: what is not asked for is not read.

Shapes: R rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparc_bench.atomic import write_atomic
from sparc_bench.errors import UserError
from sparc_bench.feature_cache import KEY_FILE, ROWS

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
        self._blocks: dict[str, list[tuple[Block, int]]] = {}
        self._pending: list[Block] = []
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
        return any(column in block.columns for block, _ in self._blocks.get(row, ()))

    def read(self, column: str, rows: Sequence[str], beside: str | None = None) -> Tensor:
        """The column of some rows that hold it, copied, in this order; with `beside`, from where that column is."""
        places: dict[Block, tuple[list[int], list[int]]] = {}
        for position, row in enumerate(rows):
            block, index = next(place for place in self._blocks[row] if (beside or column) in place[0].columns)
            positions, indices = places.setdefault(block, ([], []))
            positions.append(position)
            indices.append(index)
        first = next(iter(places)).columns[column]
        # torch's own memory is aligned, a mapped file is not: sums of equal numbers could round differently
        found = torch.empty(len(rows), *first.shape[1:], dtype=first.dtype)
        for block, (positions, indices) in places.items():
            at = indices[0]
            if positions == list(range(len(rows))) and indices == list(range(at, at + len(rows))):
                return found.copy_(block.columns[column][at : at + len(rows)])  # as they were added
            found[positions] = block.columns[column][indices]
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
            self._pending.append(block)
            self._index(block)
        if time.monotonic() - self._waiting_since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits; where that is not possible `error` says why, and the rows stay in memory."""
        if not self._pending or self.error:
            return
        rows = tuple(row for block in self._pending for row in block.rows)
        columns = {
            name: torch.cat([block.columns[name] for block in self._pending]) for name in self._pending[0].columns
        }
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
            for block in self._pending:
                self._forget(block)
            self._index(written)
        self._pending = []

    def free_bytes(self) -> int:
        """On the disk that the folder lies on, or will."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        return shutil.disk_usage(there).free

    def touch(self) -> None:
        """Note that it was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / KEY_FILE)

    def _fits(self, block: Block) -> bool:
        together = [*self._pending, block]
        return (
            block.layout == self._pending[0].layout
            and sum(len(each.rows) for each in together) <= SHARD_ROWS
            and sum(each.bytes for each in together) <= SHARD_BYTES
        )

    def _index(self, block: Block) -> None:
        for index, row in enumerate(block.rows):
            self._blocks.setdefault(row, []).append((block, index))

    def _forget(self, block: Block) -> None:
        for row in block.rows:
            self._blocks[row] = [place for place in self._blocks[row] if place[0] is not block]


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
