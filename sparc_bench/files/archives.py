"""Zip and tar archives of strangers: one that leaves its folder or inflates is refused before anything is unpacked.

Limits: all members of a zip archive together may unpack to `RATIO` times the size of the archive and `FREE` bytes more;
of a compressed tar archive, `FREE` bytes are looked at.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy import ndarray

from sparc_bench.errors import UserError

ZIP = b"PK\x03\x04"

RATIO = 100
"""Largest ratio of unpacked to packed bytes; arrays of text reach 50."""

FREE = 64 * 2**20
"""Bytes that any archive may unpack to, whatever its ratio."""


def members(path: Path) -> list[str]:
    """Names of the members and targets of the links of a zip or tar archive; empty for any other file.

    Raises:
        Exception: of whatever kind; the archive is truncated or damaged.
        UserError: the archive inflates beyond the limits.
    """
    with path.open("rb") as file:
        start = file.read(len(ZIP))
    if start == ZIP:
        with zipfile.ZipFile(path) as archive:
            refuse_inflating(path, archive, path.stat().st_size)
            return archive.namelist()
    if not tarfile.is_tarfile(path):
        return []
    found = []
    with tarfile.open(path) as tar:
        while (member := tar.next()) is not None:
            found.append(member)
            if tar.offset > max(FREE, path.stat().st_size):
                raise UserError(
                    f"{path} unpacks to more than {FREE // 2**20} MiB: unpack it and name the file of weights in it."
                )
    if not found:
        raise ValueError("it is all zeros")
    return [member.name for member in found] + [member.linkname for member in found if member.linkname]


def refuse_inflating(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    """Raise UserError for a zip archive that unpacks to much more than its `size` in bytes."""
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > RATIO * size + FREE:
        raise UserError(
            f"{path} has {size:,} bytes and would unpack to {unpacked:,}, over {RATIO} times as many, as an attack "
            "would have it: take the file from its authors anew, or save its arrays uncompressed."
        )


def refuse_escaping(path: Path, names: Sequence[str]) -> None:
    """Raise UserError for a name of a member that leads out of the folder that an archive is unpacked in."""
    escaping = [name for name in names if escapes(name)]
    if escaping:
        raise UserError(
            f"{path} is an archive with a path that leaves its folder ({escaping[0]!r}), as an attack would have it: "
            "do not unpack it, and take the file from its authors anew."
        )


def escapes(name: str) -> bool:
    """Whether a relative path leads out of its folder, or is none."""
    parts = name.replace("\\", "/").split("/")
    odd = "\0" in name or max(map(len, parts)) > 255
    return odd or ".." in parts or PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)


@contextmanager
def arrays(path: Path, content: bytes | None = None) -> Iterator[Mapping[str, ndarray]]:
    """The arrays of a `.npz` file, each unpacked when it is asked for; nothing in them is unpickled.

    Args:
        path: the file.
        content: its bytes where they are read already.

    Raises:
        ValueError: the file is no archive of arrays, truncated or damaged, an array in it too.
        UserError: the archive inflates beyond the limits.
    """
    opened = path if content is None else io.BytesIO(content)
    size = path.stat().st_size if content is None else len(content)
    with odd_arrays():
        with zipfile.ZipFile(opened) as archive:
            refuse_inflating(path, archive, size)
        loaded = np.load(opened, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("no archive of arrays")
    with loaded:
        yield _Arrays(loaded)


class _Arrays(Mapping[str, ndarray]):
    """The arrays of an open archive; an odd one is a ValueError when it is asked for."""

    def __init__(self, archive: np.lib.npyio.NpzFile) -> None:
        self._archive = archive

    def __getitem__(self, name: str) -> ndarray:
        if name not in self._archive.files:
            raise KeyError(name)
        with odd_arrays():
            found = self._archive[name]
        if not isinstance(found, ndarray):
            raise ValueError(f"'{name}' is no array")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.files)

    def __len__(self) -> int:
        return len(self._archive.files)


@contextmanager
def odd_arrays() -> Iterator[None]:
    """A context in which whatever numpy raises for an odd file is a ValueError."""
    try:
        yield
    except (UserError, ValueError):
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    except Exception as error:  # a header can be any Python expression, of which numpy expects one kind
        raise ValueError(f"its header is odd: {type(error).__name__}") from None


def npy(path: Path) -> ndarray:
    """The array of a `.npy` file, mapped into memory; raises ValueError for whatever is none."""
    with odd_arrays():
        found: ndarray = np.lib.format.open_memmap(path, mode="r")
        return found
