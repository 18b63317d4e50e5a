"""A shard of a feature store: one safetensors file with rows by name, columns and a checksum of each.

Shapes: R rows.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparc_bench.feature_cache import ROWS

CHECKSUMS = "checksums"
"""Key of the checksums in the metadata of a shard: CRC-32 (2 GB/s) of the row names and of each column."""

SMALL = 2**16
"""Bytes up to which a column is checked when its shard is opened; larger ones are checked when they are needed."""


class DamagedShardError(ValueError):
    """A shard whose content differs from what was written."""


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows of one shard (memory-mapped), or rows that are not yet written.

    Attributes:
        rows: names of the rows.
        columns: name of the column -> tensor on the CPU, R first.
        file: the shard; None for rows that are not yet written.
        unchecked: columns of the shard that were not yet compared with their checksums -> checksum.
    """

    rows: tuple[str, ...]
    columns: Mapping[str, Tensor]
    file: Path | None = None
    unchecked: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all columns."""
        return sum(column.numel() * column.element_size() for column in self.columns.values())

    @property
    def layout(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Column -> shape of a row and dtype; blocks of equal layout can share a shard."""
        return {name: (column.shape[1:], column.dtype) for name, column in self.columns.items()}

    def intact(self, column: str) -> bool:
        """Whether a column is as it was written; it is read once, the first time."""
        expected = self.unchecked.get(column)
        if expected is None:
            return True
        if _checksum(self.columns[column]) != expected:
            return False
        del self.unchecked[column]
        return True


def shard_bytes(rows: Sequence[str], columns: Mapping[str, Tensor]) -> bytes:
    """The content of a shard file."""
    names = json.dumps(rows, ensure_ascii=False)
    sums = {name: _checksum(column) for name, column in columns.items()}
    content: bytes = save(dict(columns), {ROWS: names, CHECKSUMS: json.dumps([zlib.crc32(names.encode()), sums])})
    return content


def shard_names(folder: Path) -> list[str]:
    """File names of a folder's shards; empty where the folder is missing."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return [name for name in names if name.endswith(".safetensors") and not name.startswith(".")]


def open_shard(path: Path, *, written_here: bool = False) -> RowBlock | None:
    """The memory-mapped rows of a shard; None where it cannot be read, as after another process removed it.

    Args:
        path: path of the shard.
        written_here: whether this process wrote it just now, so that its checksums need no comparison.

    Raises:
        DamagedShardError: the file is truncated, or names or small columns do not match their checksums.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            names = metadata[ROWS]
            of_names, sums = json.loads(metadata[CHECKSUMS])
            rows = tuple(json.loads(names))
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if any(len(column) != len(rows) for column in columns.values()):
            raise DamagedShardError("another number of rows than names")
        if zlib.crc32(names.encode()) != of_names or sums.keys() != columns.keys():
            raise DamagedShardError("other names than were written")
    except OSError:
        return None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedShardError(str(error)) from error
    block = RowBlock(rows, columns, path, {} if written_here else dict(sums))
    small = [name for name, column in columns.items() if column.numel() * column.element_size() <= SMALL]
    if not all(block.intact(name) for name in small):
        raise DamagedShardError("other values than were written")
    return block


def _checksum(column: Tensor) -> int:
    about = zlib.crc32(f"{column.dtype} {tuple(column.shape)}".encode())
    return zlib.crc32(column.contiguous().reshape(-1).view(torch.uint8).numpy().data, about)
