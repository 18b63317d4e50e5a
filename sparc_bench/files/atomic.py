"""Atomic writes: a file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sparc_bench.errors import UserError
from sparc_bench.files.refusal import not_written

_PIECE = 2**24
"""Bytes read and written at once."""

_DRAFT = re.compile(r"\..+\.(?P<place>\w+)-(?P<pid>\d+)-[0-9a-f]{8}\.part")


@contextlib.contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: renamed to `path` when the block succeeds, removed when it fails.

    Drafts that killed processes of this machine left in the folder are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path.parent)
    temporary = draft_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def draft_path(path: Path) -> Path:
    """A path beside `path` that no other process, container or machine uses."""
    return path.with_name(f".{path.name}.{_place()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def remove_drafts(folder: Path, whoever: bool = False) -> None:
    """Remove the drafts that killed processes left in a folder; nothing but drafts of this package is touched.

    Args:
        folder: the folder.
        whoever: whether drafts of other machines go too: only where no other process can be writing there.
    """
    for file in folder.glob(".*.part"):
        named = _DRAFT.fullmatch(file.name)
        if named and (whoever or (named["place"] == _place() and not _runs(int(named["pid"])))):
            with contextlib.suppress(OSError):
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Errors of the file system within the block become one sentence about `path`.

    Raises:
        UserError: the file system refuses.
    """
    try:
        yield
    except OSError as error:
        raise UserError(not_written(path, error)) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written; an earlier file stays as it is.
    """
    with written(path), draft(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def reserve(file: Path, size: int) -> None:
    """Give a file all blocks of its size, so that a full disk is an OSError here and no fault of a page later."""
    with file.open("r+b") as opened:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, size)
            return
        for start in range(0, size, _PIECE):  # macOS and Windows have no such call; what is written has its blocks
            opened.seek(start)
            piece = opened.read(min(_PIECE, size - start))
            opened.seek(start)
            opened.write(piece)


@cache
def _place() -> str:
    """Name of the machine, with the container's number where containers have their own process ids."""
    host = re.sub(r"\W", "", socket.gethostname())[:32]
    try:
        return f"{host}{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return host


def _runs(pid: int) -> bool:
    """Whether a process of this machine runs; True where this cannot be told without harm (Windows)."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
