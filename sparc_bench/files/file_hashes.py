"""Hashes of files by content, computed once: they are remembered in the cache folder.

A file is hashed again when its size, one of its times or its inode changes, or when it lies at another path. Neither
the hash of a data set nor a cached vector knows the path: a moved folder costs one pass of hashing and no encoding.
On two cores 5,000 to 12,000 photos are hashed a second, or 1.5 GB of large files; 130,000 are remembered.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import zlib
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.cache_folder import cache_folder

HASHES = "hashes"
"""Folder of the remembered hashes within the cache folder, with one file for each folder of a data set."""

UNREADABLE = "unreadable"
"""Stands for the hash of a file that is there and cannot be read."""

RECENT = 2.0
"""Seconds after a change in which a file is not remembered: its times might not show another one."""

_GONE, _HASHED, _UNREADABLE = 0, 1, 2
_WORD = (1 << 64) - 1
_ROW = np.dtype([("key", "<u8", 2), ("state", "<u8", 4), ("digest", "u1", 32)])
"""A remembered file, in 80 bytes: hash of its name; size, times and inode; sha256 of the content."""
_CHECKSUM_BYTES = 9

_THREADS = 4
_AT_ONCE = 256
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_WRITES = 60.0


@dataclass(frozen=True)
class FileHashes(Sequence[str]):
    """Sha256 of each of many files, `UNREADABLE` for one that cannot be read, empty for one that is not there.

    Attributes:
        digest_N32: bytes of the hashes.
        kind_N: `_GONE`, `_HASHED` or `_UNREADABLE` for each file.
    """

    digest_N32: UInt8[ndarray, "N 32"]
    kind_N: UInt8[ndarray, "N"]

    @property
    def first_gone(self) -> int | None:
        """Position of the first file that is not there; None where all are."""
        gone = np.flatnonzero(self.kind_N == _GONE)
        return int(gone[0]) if len(gone) else None

    def __len__(self) -> int:
        return len(self.kind_N)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> FileHashes: ...
    def __getitem__(self, index: int | slice) -> str | FileHashes:
        if isinstance(index, slice):
            return FileHashes(self.digest_N32[index], self.kind_N[index])
        kind = self.kind_N[index]
        if kind == _HASHED:
            return bytes(self.digest_N32[index]).hex()
        return UNREADABLE if kind == _UNREADABLE else ""


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256 of each file that exists in the folder; missing files are left out.

    Raises:
        UserError: the folder cannot be searched, or no file can have one of the names.
    """
    distinct = list(dict.fromkeys(names))
    return {name: found for name, found in zip(distinct, hashes_of(folder, distinct), strict=True) if found}


def hashes_of(folder: Path, names: Sequence[str]) -> FileHashes:
    """The hash of each file in the order of the names, in 33 bytes a file.

    Raises:
        UserError: as `file_hashes`.
    """
    rows_N, there_N = _rows(folder, names)
    known_N = there_N & _look_up(_remembered(folder), rows_N)
    hashes = FileHashes(rows_N["digest"], np.where(known_N, _HASHED, _GONE).astype(np.uint8))
    missing = np.flatnonzero(there_N & ~known_N)
    if len(missing):
        _hash_missing(folder, names, rows_N, hashes.kind_N, missing)
    return FileHashes(np.ascontiguousarray(hashes.digest_N32), hashes.kind_N)


def _hash_missing(folder: Path, names: Sequence[str], rows_N: ndarray, kind_N: ndarray, missing: ndarray) -> None:
    """Hash the missing files into `rows_N` and `kind_N`, tell the user where it takes long, and remember them."""
    begun = said = written = time.monotonic()
    is_new_N = np.zeros(len(rows_N), dtype=bool)
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            now = time.time()
            for at, digest in zip(
                batch.tolist(), threads.map(_digest, repeat(folder), [names[at] for at in batch.tolist()]), strict=True
            ):
                if digest is None:
                    continue
                kind_N[at] = _UNREADABLE if digest == UNREADABLE else _HASHED
                if digest != UNREADABLE:
                    rows_N["digest"][at] = np.frombuffer(bytes.fromhex(digest), np.uint8)
                    is_new_N[at] = not _is_recent(rows_N[at], now)
            done, clock = start + len(batch), time.monotonic()
            if clock - said > _SECONDS_BETWEEN_LINES and done < len(missing):
                left = (clock - begun) / done * (len(missing) - done)
                _say(f"Hashing the files of {folder}, once: {done:,} of {len(missing):,}, {left:.0f} s left.")
                said = clock
            if clock - written > _SECONDS_BETWEEN_WRITES:
                _remember(folder, rows_N[is_new_N])
                written = time.monotonic()
    _remember(folder, rows_N[is_new_N])


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _rows(folder: Path, names: Sequence[str]) -> tuple[ndarray, Bool[ndarray, "N"]]:
    """A row of the memory for each file, without its hash, and whether the file is there."""
    keys, states, there_N = bytearray(), array("Q"), np.zeros(len(names), dtype=bool)
    home = os.fspath(folder)
    for at, name in enumerate(names):
        found = _stat(home, name)
        there_N[at] = found is not None
        keys += hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        states.extend(found or (0, 0, 0, 0))
    rows_N = np.zeros(len(names), dtype=_ROW)
    rows_N["key"] = np.frombuffer(keys, "<u8").reshape(-1, 2)
    rows_N["state"] = np.frombuffer(states, "=u8").reshape(-1, 4)
    return rows_N, there_N


def _stat(home: str, name: str) -> tuple[int, int, int, int] | None:
    """Size, times and inode of a file, as unsigned numbers; None where there is none."""
    try:
        found = os.stat(os.path.join(home, name))  # noqa: PTH116, PTH118 - a Path for each of a million takes longer
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise UserError(f"{name[:80]!r} in {home} is no name of a file: mend the annotations.") from None
    except OSError as error:
        raise UserError(f"{Path(home, name)} cannot be read ({error.strerror}): mend its permissions.") from None
    return found.st_size, found.st_mtime_ns & _WORD, found.st_ctime_ns & _WORD, found.st_ino & _WORD


def _is_recent(row: ndarray, now: float) -> bool:
    return bool(row["state"].view(np.int64)[1:3].max() / 1e9 > now - RECENT)


def _digest(folder: Path, name: str) -> str | None:
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return UNREADABLE


def _memory(folder: Path) -> Path:
    return cache_folder() / HASHES / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.bin"


def _remembered(folder: Path) -> ndarray:
    """The remembered rows, by key; none where the memory is missing or damaged."""
    try:
        content = _memory(folder).read_bytes()
    except OSError:
        content = b""
    rows = memoryview(content)[_CHECKSUM_BYTES:]
    if content[:_CHECKSUM_BYTES] != _checksum(rows) or len(rows) % _ROW.itemsize:
        return np.zeros(0, dtype=_ROW)
    return np.frombuffer(rows, dtype=_ROW)


def _look_up(known: ndarray, rows_N: ndarray) -> Bool[ndarray, "N"]:
    """Fill in the hashes of files that are remembered in the state that they are in; whether each is."""
    if not len(known):
        return np.zeros(len(rows_N), dtype=bool)
    first = np.ascontiguousarray(known["key"][:, 0])
    place_N = np.minimum(np.searchsorted(first, rows_N["key"][:, 0]), len(known) - 1)
    same_N = np.ones(len(rows_N), dtype=bool)
    for part in ("key", "state"):
        for column in range(rows_N[part].shape[1]):
            same_N &= known[part][place_N, column] == rows_N[part][:, column]
    rows_N["digest"][same_N] = known["digest"][place_N[same_N]]
    return same_N


def _remember(folder: Path, new: ndarray) -> None:
    """Add to the memory; a disk that refuses it costs the next command the same hashing."""
    if not len(new):
        return
    rows = np.concatenate([new, _remembered(folder)])
    _, first = np.unique(rows["key"][:, 0], return_index=True)
    content = rows[first].tobytes()
    try:
        write_atomic(_memory(folder), _checksum(content) + content)
    except UserError:
        return


def _checksum(content: bytes | memoryview) -> bytes:
    return f"{zlib.crc32(content):08x}\n".encode()
