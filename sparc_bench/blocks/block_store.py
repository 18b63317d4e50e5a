"""Stores of blocks: a folder, one checksummed file a block, from which a killed evaluation goes on; and memory."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.files import archives
from sparc_bench.files.atomic import remove_drafts, reserve, write_atomic, written
from sparc_bench.files.json_text import json_value
from sparc_bench.files.lock import LOCK_FILE, locked
from sparc_bench.protocol import Block

SUFFIX = ".partial"
"""Suffix of the folder beside a record, while the record is being made."""

INPUTS = "inputs.json"
"""File of a folder of blocks that says of which evaluation they are."""

_INDEX, _ARRAY = "index", "array:"


class BlockStore(Protocol):
    """Numbered blocks of one evaluation."""

    def read(self, number: int) -> Block | None:
        """The block, or None where it is not there or damaged."""
        ...

    def write(self, number: int, block: Block) -> None:
        """Keep a block."""
        ...

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> ndarray:
        """An array to write to, for what is too large for memory."""
        ...

    def inner(self, name: str) -> BlockStore:
        """The store of another row (`untrained` ...) of the same evaluation."""
        ...

    def kept(self, count: int) -> str:
        """Words on how many of `count` blocks outlive the process, and where; empty where none can."""
        ...


class BlocksInMemory:
    """Blocks in memory (see `BlockStore`), for evaluations that leave no record."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}

    def read(self, number: int) -> Block | None:
        """The block, or None."""
        return self._blocks.get(number)

    def write(self, number: int, block: Block) -> None:
        """Keep a block."""
        self._blocks[number] = block

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> ndarray:  # noqa: ARG002 - memory has no names
        """An array."""
        return np.empty(shape, dtype)

    def inner(self, name: str) -> BlocksInMemory:  # noqa: ARG002 - as above
        """Another store."""
        return BlocksInMemory()

    def kept(self, count: int) -> str:  # noqa: ARG002 - as above
        """Nothing."""
        return ""


class BlockFolder:
    """A folder of blocks (see `BlockStore`): `000012.npz` is block 12; zip's CRC-32 of every array tells damage.

    Args:
        folder: created when the first block is written.
        inputs: JSON of all that decides a block, kept in the folder.
        say: function that shows the user a sentence.
    """

    def __init__(self, folder: Path, inputs: str, say: Callable[[str], None]) -> None:
        self.folder, self._inputs, self._say = folder, inputs, say

    def held(self) -> AbstractContextManager[bool]:
        """The folder's lock: two processes at once would each remove what the other needs.

        Raises:
            UserError: another process holds it; the sentence names it.
        """
        return locked(self.folder, "--results")

    def claim(self) -> None:
        """Remove blocks of an evaluation with other inputs, which is said, and what killed processes left."""
        if not _content(self.folder):
            return
        file = self.folder / INPUTS
        try:
            ours = json_value(file.read_bytes()) == json_value(self._inputs.encode())
        except (OSError, ValueError):
            ours = False
        if ours:
            remove_drafts(self.folder)
            return
        self._say(f"{self.folder} holds blocks of an evaluation with other inputs: starting anew.")
        self.remove()

    def read(self, number: int) -> Block | None:
        """The block, or None where it is not there or damaged, which is said."""
        file = self._file(number)
        if not file.is_file():
            return None
        try:
            with archives.arrays(file) as arrays:
                found = {name: arrays[name] for name in arrays}
            return Block(found.pop(_INDEX), {name.removeprefix(_ARRAY): array for name, array in found.items()})
        except (ValueError, KeyError):
            self._say(f"{file} is damaged: this block is computed again.")
            with written(file):
                file.unlink(missing_ok=True)
            return None

    def write(self, number: int, block: Block) -> None:
        """Write a block whole or not at all.

        Raises:
            UserError: the file system refuses.
        """
        content = io.BytesIO()
        arrays = {_INDEX: block.index_N, **{f"{_ARRAY}{name}": array for name, array in block.arrays.items()}}
        np.savez(content, allow_pickle=False, **arrays)
        if not (self.folder / INPUTS).exists():
            write_atomic(self.folder / INPUTS, self._inputs.encode())
        write_atomic(self._file(number), content.getvalue())

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> ndarray:
        """An array in a file of the folder, mapped into memory.

        Raises:
            UserError: the file system refuses.
        """
        file = self.folder / f"{name}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        with written(file):
            found: ndarray = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
            reserve(file, file.stat().st_size)
        return found

    def inner(self, name: str) -> BlockFolder:
        """A folder within this one."""
        return BlockFolder(self.folder / name, self._inputs, self._say)

    def kept(self, count: int) -> str:
        """Words on how many of `count` blocks are in the folder."""
        return f"{len(list(self.folder.glob('*.npz')))} of {count} blocks are kept in {self.folder}"

    def remove(self) -> None:
        """Remove all blocks, and the folder, which goes later where its lock is held."""
        with written(self.folder):
            for path in _content(self.folder):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != LOCK_FILE]


class StoredBlocks(Sequence[Block]):
    """The blocks of a store, each read when it is asked for."""

    def __init__(self, store: BlockStore, count: int) -> None:
        self._store, self._count = store, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Block: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Block]: ...
    def __getitem__(self, number: int | slice) -> Block | Sequence[Block]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        return surely(self._store, number, self._count)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(self._count))


def surely(store: BlockStore, number: int, count: int) -> Block:
    """A block that was there before.

    Raises:
        UserError: it has gone since, as where the same evaluation runs twice and one has finished.
    """
    block = store.read(number)
    if block is None:
        raise UserError(
            f"Block {number} of {count} has gone since it was written, as where the same evaluation runs twice: "
            "start the same command again."
        )
    return block
