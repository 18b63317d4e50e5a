"""Pixels of a split for training: decoded once into a cached file, or on the fly where that file would be too large.

A checksum lies beside the file; pixels that do not match it are decoded again.

Shapes: N images, S size (rows and columns).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.name import as_part
from sparc_bench.dataset import Examples
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.atomic import draft, reserve, write_atomic
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.files.refusal import remedy
from sparc_bench.images.view import View
from sparc_bench.two_towers.image_transform import ImageTransform

CACHE_LIMIT = 4 * 2**30
"""Largest size of the cached file of a split, in bytes; loader workers decode a larger split on the fly."""

UNREADABLE, CHECKSUM = ".unreadable", ".crc32"
"""Suffixes of the files beside the pixels: ids of unreadable images, checksum of both."""

_BLOCK = 2**22


@dataclass(frozen=True)
class Pixels:
    """Pixels of the readable images of a split.

    Attributes:
        data: the split.
        transform: transform from an image to its pixels.
        index: rows of the split that are readable, in order (all rows where images are decoded on the fly).
        unreadable: ids of the unreadable images, which are left out.
        array_NSS3: pixels of the rows in `index`; None where images are decoded on the fly.
    """

    data: Examples
    transform: ImageTransform
    index: tuple[int, ...]
    unreadable: tuple[str, ...]
    array_NSS3: ndarray | None

    @property
    def in_file(self) -> bool:
        """Whether they lie in a cached file; else images are decoded on the fly."""
        return self.array_NSS3 is not None

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, positions: Sequence[int]) -> ndarray:
        """Pixels at positions in `index`; raises UnreadableImageError where images are decoded on the fly."""
        if self.array_NSS3 is not None:
            return np.asarray(self.array_NSS3[list(positions)])
        return np.stack([_opened(self.transform, self.data.examples[self.index[p]].view) for p in positions])


def load_pixels(
    data: Examples,
    transform: ImageTransform,
    max_unreadable: float,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    limit: int = CACHE_LIMIT,
) -> Pixels:
    """Pixels of a split, decoded once into a memory-mapped file that other runs and processes share.

    Args:
        data: the split.
        transform: the model's image transform.
        max_unreadable: largest share of unreadable images; they are left out.
        advance: called with (done, total) as images are decoded.
        limit: largest size of the file in bytes; above it images are decoded on the fly.

    Raises:
        UserError: too many images are unreadable, or the disk has no room for the file.
    """
    shape = (len(data), *transform.shape)
    if int(np.prod(shape)) > limit:
        return Pixels(data, transform, tuple(range(len(data))), (), None)
    contents = [[example.id, example.image.content or data.fingerprint] for example in data]
    key = canonical_hash([contents, *transform.key])[:24]
    file = cache_folder() / "pixels" / f"{as_part(data.dataset)}-{as_part(data.split)}-{key}.npy"
    # ids of unreadable images lie beside the file, so that a cache hit reports them too
    names = file.with_suffix(UNREADABLE)
    if file.is_file() and not _intact(file):
        sys.stderr.write(f"The decoded pixels {file} are damaged: they are decoded again.\n")
        for each in (file, names, file.with_suffix(CHECKSUM)):
            each.unlink(missing_ok=True)
    if not file.is_file():
        _write(file, data.views, transform, shape, advance)
    array_NSS3 = np.load(file, mmap_mode="r")
    unreadable = tuple(names.read_text(encoding="utf-8").splitlines()) if names.is_file() else ()
    try:
        refuse_too_many(unreadable, data, max_unreadable)
    except UserError:
        for each in (file, names, file.with_suffix(CHECKSUM)):
            each.unlink(missing_ok=True)
        raise
    gone = set(unreadable)
    index = tuple(row for row, example in enumerate(data) if example.id not in gone)
    return Pixels(data, transform, index, unreadable, array_NSS3[: len(index)])


def _intact(file: Path) -> bool:
    """Whether the pixels and the ids of unreadable images are as they were written."""
    try:
        return file.with_suffix(CHECKSUM).read_text(encoding="utf-8") == _checksum(file, file.with_suffix(UNREADABLE))
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(pixels: Path, names: Path) -> str:
    """CRC-32 (2 GB/s) of the pixels' file and of the names beside it, as text."""
    found = zlib.crc32(names.read_bytes()) if names.is_file() else 0
    with pixels.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}\n"


def _opened(transform: ImageTransform, view: View) -> ndarray:
    return np.asarray(transform(view)[0])


def refuse_too_many(unreadable: Collection[str], data: Examples, max_unreadable: float) -> None:
    """Raise UserError where more than the share `max_unreadable` of a split's images cannot be read."""
    if len(unreadable) > max_unreadable * len(data):
        raise UserError(
            f"{len(unreadable)} of {len(data)} images of {data.dataset} cannot be read (first: {min(unreadable)}): "
            f"mend them, or raise data.max_unreadable above {max_unreadable} in the recipe."
        )


def _write(
    file: Path,
    views: Sequence[View],
    transform: ImageTransform,
    shape: tuple[int, ...],
    advance: Callable[[int, int], None],
) -> None:
    unreadable: list[str] = []
    try:
        with draft(file) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            array.flush()
            reserve(temporary, temporary.stat().st_size)
            row = 0
            for done, view in enumerate(views):
                try:
                    array[row] = _opened(transform, view)
                    row += 1
                except UnreadableImageError:
                    unreadable.append(view.id)
                if done % 64 == 0:
                    advance(done, len(views))
            array.flush()
            del array
            names = file.with_suffix(UNREADABLE)
            names.unlink(missing_ok=True)
            if unreadable:
                write_atomic(names, ("\n".join(unreadable) + "\n").encode())
            write_atomic(file.with_suffix(CHECKSUM), _checksum(temporary, names).encode())
    except OSError as error:
        if remedy(error) is not None:
            raise UserError(
                f"The pixel cache {file.parent} cannot be written ({error.strerror}; it needs "
                f"{int(np.prod(shape)) / 2**20:.0f} MiB): free space or set SPARC_BENCH_CACHE to another folder."
            ) from None
        raise
