"""The contents of the cache folder: a table of them, and their removal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from safetensors import SafetensorError, safe_open

from sparc_bench.feature_cache import FEATURES, KEY_FILE, ROWS
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.files.file_hashes import HASHES
from sparc_bench.terminal import table

PIXELS = "pixels"
"""Folder of the decoded training images (`sparc_bench.training.pixels`) within the cache folder."""

FROZEN = "frozen_features"
"""Folder of the training images' features by frozen image towers (`sparc_bench.training.frozen_features`) there."""


@dataclass(frozen=True)
class CacheEntry:
    """The features of one key, or the decoded pixels or features of one split for training.

    Attributes:
        model: name of the model that the features were first computed for.
        data: dataset:split; empty for texts, which belong to no data set.
        what: kinds of features in words.
        count: number of images or texts in words.
        bytes: size on disk.
        used: time of the last read or write, in seconds since the epoch.
        place: folder or file, relative to the cache folder.
        files: all files of the entry.
    """

    model: str
    data: str
    what: str
    count: str
    bytes: int
    used: float
    place: str
    files: tuple[Path, ...]


def entries() -> list[CacheEntry]:
    """All entries of the cache folder, the least recently used last."""
    root = cache_folder()
    found = [_features(folder, root) for folder in _inside(root / FEATURES) if folder.is_dir()]
    for kept, what in ((PIXELS, "decoded pixels"), (FROZEN, "features by a frozen tower")):
        found += [_of_split(file, root, what) for file in _inside(root / kept) if file.suffix in (".npy", ".part")]
    return sorted((entry for entry in found if entry.files), key=lambda entry: (-entry.used, entry.place))


def show() -> tuple[Table, str]:
    """The table of all entries, and a sentence with their total size."""
    found = entries()
    rows = [
        (entry.model, entry.data, entry.what, entry.count, _size(entry.bytes), _time(entry.used), entry.place)
        for entry in found
    ]
    drawn = table(("model", "data", "what", "of", "size", "last used", "place"), rows)
    return (
        drawn,
        f"{_size(sum(entry.bytes for entry in found))} in {cache_folder()}; sparc-bench cache clear removes it.",
    )


def clear() -> str:
    """Remove all features, decoded pixels and remembered hashes of files; returns a sentence about all but the last."""
    found, root = entries(), cache_folder()
    for entry in found:
        for file in entry.files:
            file.unlink(missing_ok=True)
        _remove_empty(root / entry.place)
    for file in _inside(root / HASHES):
        file.unlink(missing_ok=True)
    for folder in (root / FEATURES, root / PIXELS, root / FROZEN, root / HASHES):
        _remove_empty(folder)
    features = sum(entry.place.startswith(FEATURES) for entry in found)
    frozen = sum(entry.place.startswith(FROZEN) for entry in found)
    pixels = len(found) - features - frozen
    what = f"{_count(features, 'folder')} of features and {_count(pixels, 'file')} of decoded pixels"
    if frozen:
        what += f" and {_count(frozen, 'file')} of features by a frozen tower"
    return f"Removed {what} ({_size(sum(entry.bytes for entry in found))}) from {root}."


def _features(folder: Path, root: Path) -> CacheEntry:
    files = [
        file
        for file in _inside(folder)
        if file.name == KEY_FILE or file.suffix == ".safetensors" or file.name.endswith(".part")
    ]
    about = _about(folder / KEY_FILE)
    weights = str(about.get("weights", ""))
    rows: set[str] = set()
    columns: set[str] = set()
    for file in files:
        if file.suffix == ".safetensors":
            of_shard = _header(file)
            rows.update(of_shard[0])
            columns.update(of_shard[1])
    data = f"{about['dataset']}:{about['split']}" if "dataset" in about else ""
    # a text has one row for each batch of texts that it was encoded in
    count = _count(len(rows), "image") if data else _count(len({row.partition(" ")[2] for row in rows}), "text")
    return CacheEntry(
        model=f"{about.get('model', '?')}{f' ({weights})' if weights.startswith('untrained') else ''}",
        data=data,
        what=_what(columns),
        count=count,
        bytes=_bytes(files),
        used=max((file.stat().st_mtime for file in files), default=0.0),
        place=str(folder.relative_to(root)),
        files=tuple(files),
    )


def _of_split(file: Path, root: Path, what: str) -> CacheEntry:
    beside = [file.with_suffix(suffix) for suffix in (".unreadable", ".crc32", ".json")]
    files = [file, *(each for each in beside if each.is_file())]
    data = ":".join(file.stem.rsplit("-", 2)[:2])
    return CacheEntry(
        "", data, what, "", _bytes(files), file.stat().st_atime, str(file.relative_to(root)), tuple(files)
    )


def _what(columns: Sequence[str] | set[str]) -> str:
    """The kinds of features in words, from the names of the columns.

    >>> _what({"area", "grid", "global", "patches:last", "half:value"})
    'global, patches (last), patches in half precision (value)'
    """
    kinds = [kind for kind in ("global", "branches") if kind in columns]
    for prefix, name in (("patches:", "patches"), ("half:", "patches in half precision")):
        paths = sorted(column.removeprefix(prefix) for column in columns if column.startswith(prefix))
        if paths:
            kinds.append(f"{name} ({', '.join(paths)})")
    return ", ".join(kinds)


def _header(shard: Path) -> tuple[list[str], list[str]]:
    """Names of the rows and columns of a shard, read without torch; empty for a damaged shard."""
    try:
        with safe_open(shard, framework="numpy") as file:
            return json.loads(file.metadata()[ROWS]), list(file.keys())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return [], []


def _about(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _inside(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.iterdir())


def _bytes(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _size(count: int) -> str:
    """A size in megabytes or gigabytes.

    >>> _size(3_210_000), _size(4_560_000_000)
    ('3.2 MB', '4.56 GB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
