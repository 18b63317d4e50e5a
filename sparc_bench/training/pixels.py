"""Training images as uint8 pixels, as the tower takes them: decoded once into a cached file, on the fly if too large.

Shapes: N images, S size (rows and columns).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from sparc_bench.cards.card import canonical_hash
from sparc_bench.dataset import DataSplit
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.atomic import draft, write_atomic
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.images.item import ImageItem
from sparc_bench.two_towers.framing import Framing

CACHE_LIMIT = 4 * 2**30
"""Bytes of pixels up to which a split is decoded once; a larger one is decoded by loader workers as it is needed."""


@dataclass(frozen=True)
class Pixels:
    """The readable images of a split.

    Attributes:
        index: rows of the split that are readable, in order (all of them where images are decoded on the fly).
        unreadable: ids that were left out.
        array_NSS3: the pixels of `index`, or None where they are decoded on the fly.
    """

    data: DataSplit
    framing: Framing
    index: tuple[int, ...]
    unreadable: tuple[str, ...]
    array_NSS3: ndarray | None

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, positions: Sequence[int]) -> ndarray:
        """Pixels of several readable images; raises UnreadableImageError when decoding on the fly."""
        if self.array_NSS3 is not None:
            return np.asarray(self.array_NSS3[list(positions)])
        return np.stack([_opened(self.framing, self.data.examples[self.index[p]].image) for p in positions])


def load_pixels(
    data: DataSplit,
    framing: Framing,
    max_unreadable: float,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    limit: int = CACHE_LIMIT,
) -> Pixels:
    """Decode a split once and keep it as a memory-mapped file that other runs and processes share.

    Args:
        data: the split.
        framing: how the model takes images.
        max_unreadable: share of unreadable images that is left out; more stop the run.
        advance: called with (done, total) as images are decoded.
        limit: bytes above which nothing is cached.

    Raises:
        UserError: too many unreadable images, or no room for the file.
    """
    shape = (len(data), *framing.shape)
    if int(np.prod(shape)) > limit:
        return Pixels(data, framing, tuple(range(len(data))), (), None)
    key = canonical_hash([data.fingerprint, [e.id for e in data], *framing.key])[:24]
    file = cache_folder() / "pixels" / f"{data.dataset}-{data.split}-{key}.npy"
    if not file.is_file():
        _write(file, data.items, framing, shape, advance)
    array_NSS3 = np.load(file, mmap_mode="r")
    # an unreadable image is stored with the id list beside it, so that a cache hit names it as well
    names = file.with_suffix(".unreadable")
    unreadable = tuple(names.read_text(encoding="utf-8").splitlines()) if names.is_file() else ()
    try:
        refuse_too_many(unreadable, data, max_unreadable)
    except UserError:
        file.unlink()
        names.unlink()
        raise
    gone = set(unreadable)
    index = tuple(row for row, example in enumerate(data) if example.id not in gone)
    return Pixels(data, framing, index, unreadable, array_NSS3[: len(index)])


def _opened(framing: Framing, item: ImageItem) -> ndarray:
    return np.asarray(framing(item)[0])


def refuse_too_many(unreadable: Collection[str], data: DataSplit, max_unreadable: float) -> None:
    """Raise UserError where more than the share `max_unreadable` of a split's images cannot be read."""
    if len(unreadable) > max_unreadable * len(data):
        raise UserError(
            f"{len(unreadable)} of {len(data)} images of {data.dataset} cannot be read (first: {min(unreadable)}): "
            f"mend them, or raise data.max_unreadable above {max_unreadable} in the recipe."
        )


def _write(
    file: Path,
    items: Sequence[ImageItem],
    framing: Framing,
    shape: tuple[int, ...],
    advance: Callable[[int, int], None],
) -> None:
    unreadable: list[str] = []
    try:
        with draft(file) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            # blocks are really allocated now: a full disk would otherwise kill the process at a page fault
            with temporary.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, temporary.stat().st_size)
            row = 0
            for done, item in enumerate(items):
                try:
                    array[row] = _opened(framing, item)
                    row += 1
                except UnreadableImageError:
                    unreadable.append(item.id)
                if done % 64 == 0:
                    advance(done, len(items))
            array.flush()
            del array
            if unreadable:
                write_atomic(file.with_suffix(".unreadable"), ("\n".join(unreadable) + "\n").encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise UserError(
                f"The pixel cache {file.parent} cannot be written ({error.strerror}; it needs "
                f"{int(np.prod(shape)) / 2**20:.0f} MiB): free space or set SPARC_BENCH_CACHE to another folder."
            ) from None
        raise
