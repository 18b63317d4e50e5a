"""A lock on a folder that one process at a time writes to; it ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError
from sparc_bench.files.atomic import written

LOCK_FILE = "run.lock"
_BETWEEN_TRIES = 0.2
"""Seconds."""
_FAR = 2**30
"""Byte that is locked on Windows, where a locked byte cannot be read by others."""

_open: weakref.WeakSet[Any] = weakref.WeakSet()
"""Lock files of this process; a forked child (a worker that decodes) must not hold a lock on when its parent dies."""


@contextlib.contextmanager
def locked(folder: Path, option: str = "", wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a folder, which is made; a folder that is empty at the end is removed.

    Args:
        folder: that one process at a time writes to.
        option: of the command line, which names another one; for the sentence.
        wait: whether to wait until another process gives the lock back.

    Yields:
        Whether the lock is held: a file system without locks has none, and then nothing is refused.

    Raises:
        UserError: another process holds the lock, and `wait` is not set; the sentence names it.
    """
    path = folder / LOCK_FILE
    file, held = _in_folder(path)
    while wait and held is False:
        file.close()
        time.sleep(_BETWEEN_TRIES)
        file, held = _in_folder(path)
    try:
        if held is False:
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise UserError(
                f"{folder} is being written by {holder}: wait for it, or name another folder with {option}."
            )
        with written(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}\n".encode())
        yield held is True
    finally:
        if held is not False:
            with contextlib.suppress(OSError):
                path.unlink()
        file.close()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _in_folder(path: Path) -> tuple[Any, bool | None]:
    """As `_opened`; the folder is made, which another process may just have removed."""
    with written(path):
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return _opened(path)


def _opened(path: Path) -> tuple[Any, bool | None]:
    """The open lock file, and whether its lock is ours; None where there are no locks."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        _open.add(file)
        held = _lock(file)
        try:
            # its former holder may have removed the file between our opening and our locking it
            if held is not True or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file, held
        except FileNotFoundError:
            pass
        file.close()


def _lock(file: Any) -> bool | None:  # noqa: ANN401 - an open file
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:
        return _lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _lock_on_windows(file: Any) -> bool | None:  # noqa: ANN401 - an open file
    try:
        msvcrt = importlib.import_module("msvcrt")
    except ImportError:
        return None
    file.seek(_FAR)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        file.seek(0)
    return True


def _close_in_child() -> None:
    for file in list(_open):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
