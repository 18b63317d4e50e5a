"""Hashes of files by content, computed once: they are remembered in the cache folder.

A file is hashed again when its size, one of its times or its inode changes, or when it lies at another path. Neither
the hash of a data set nor a cached vector knows the path: a moved folder costs one pass of hashing and no encoding.
On two cores 5,000 to 12,000 photos are hashed a second, or 1.5 GB of large files; 130,000 are remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.cache_folder import cache_folder

HASHES = "hashes"
"""Folder of the remembered hashes within the cache folder, with one file for each folder of a data set."""

UNREADABLE = "unreadable"
"""Stands for the hash of a file that is there and cannot be read."""

RECENT = 2.0
"""Seconds after a change in which a file is not remembered: its times might not show another one."""

_THREADS = 4
_AT_ONCE = 256
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_WRITES = 60.0


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256 of each file that exists in the folder; missing files are left out.

    Raises:
        UserError: the folder cannot be searched, or no file can have one of the names.
    """
    states = {name: state for name in dict.fromkeys(names) if (state := _state(folder / name)) is not None}
    remembered = _remembered(folder)
    found = {name: remembered[name][1] for name, state in states.items() if remembered.get(name, ("", ""))[0] == state}
    missing = [name for name in states if name not in found]
    if missing:
        _hash_missing(folder, missing, states, found)
    return {name: found[name] for name in states if name in found}


def _hash_missing(folder: Path, missing: list[str], states: Mapping[str, str], found: dict[str, str]) -> None:
    """Hash the missing files, tell the user where it takes long, and remember them."""
    begun = said = written = time.monotonic()
    new: dict[str, tuple[str, str]] = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            now = time.time()
            for name, digest in zip(batch, threads.map(_digest, repeat(folder), batch), strict=True):
                if digest is None:
                    continue
                found[name] = digest
                if digest != UNREADABLE and not _is_recent(states[name], now):
                    new[name] = (states[name], digest)
            done, clock = start + len(batch), time.monotonic()
            if clock - said > _SECONDS_BETWEEN_LINES and done < len(missing):
                left = (clock - begun) / done * (len(missing) - done)
                _say(f"Hashing the files of {folder}, once: {done:,} of {len(missing):,}, {left:.0f} s left.")
                said = clock
            if clock - written > _SECONDS_BETWEEN_WRITES:
                _remember(folder, new)
                written = time.monotonic()
    _remember(folder, new)


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _state(path: Path) -> str | None:
    """Size, times and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise UserError(f"{path.name[:80]!r} in {path.parent} is no name of a file: mend the annotations.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend its permissions.") from None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _is_recent(state: str, now: float) -> bool:
    return max(int(part) for part in state.split()[1:3]) / 1e9 > now - RECENT


def _digest(folder: Path, name: str) -> str | None:
    try:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return UNREADABLE


def _memory(folder: Path) -> Path:
    return cache_folder() / HASHES / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"


def _remembered(folder: Path) -> dict[str, tuple[str, str]]:
    """Name -> (state, sha256); empty where the memory is missing or damaged."""
    try:
        checksum, _, text = _memory(folder).read_text(encoding="utf-8").partition("\n")
        if checksum != _checksum(text):
            return {}
        return {name: (state, digest) for name, (state, digest) in json.loads(text)["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(folder: Path, new: Mapping[str, tuple[str, str]]) -> None:
    """Add to the memory; a disk that refuses it costs the next command the same hashing."""
    if not new:
        return
    files = {**_remembered(folder), **new}
    text = json.dumps({"folder": str(folder.resolve()), "files": files}, ensure_ascii=True)
    try:
        write_atomic(_memory(folder), f"{_checksum(text)}\n{text}".encode())
    except UserError:
        return


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
