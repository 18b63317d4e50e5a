"""One function call in a fresh process, so that the memory it needs can be read.

Processes are forked from a server that has imported torch and computed nothing, so that none imports it again. The
resident memory of a child starts with what the libraries allocated (about 0.5 GB) and its peak is its own; pages of
library files that only an import reads (about 0.3 GB more in a process that imports for itself) are not in it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sparc_bench.cost.cell import Cell, Reading

PRELOADED = ["sparc_bench.cost.cell"]

_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
"""What torch's allocators say (CPU, CUDA, both)."""


class DoesNotFitError(Exception):
    """A cell that memory or time does not suffice for; its text says which."""


class CellFailedError(Exception):
    """A cell whose code failed; its text is the error."""


def in_process(measure: Callable[[Cell], Reading], cell: Cell, seconds: float) -> Reading:
    """`measure(cell)` in a fresh process.

    Raises:
        DoesNotFitError: it ran out of memory, was killed, or took longer than `seconds`.
        CellFailedError: it failed in any other way.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, measure, cell), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(max(0.0, seconds)):
            raise DoesNotFitError("time: one run took longer than what was left of ten minutes")
        reading, error = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise DoesNotFitError("memory: the system killed the process") from None
        raise CellFailedError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    return _reading(reading, error)


def in_this_process(measure: Callable[[Cell], Reading], cell: Cell) -> Reading:
    """`measure(cell)` here (a GPU counts what is allocated); raises as `in_process`."""
    import gc

    import torch

    reading, error = _outcome(measure, cell)
    gc.collect()
    torch.cuda.empty_cache()
    return _reading(reading, error)


def _reading(reading: Reading | None, error: str | None) -> Reading:
    if reading is not None:
        return reading
    assert error is not None
    if any(words in error for words in _NO_MEMORY):
        raise DoesNotFitError(f"memory: {error}")
    raise CellFailedError(error)


def _child(sender: Connection, measure: Callable[[Cell], Reading], cell: Cell) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    sender.send(_outcome(measure, cell))


def _outcome(measure: Callable[[Cell], Any], cell: Cell) -> tuple[Reading | None, str | None]:
    try:
        return measure(cell), None
    except MemoryError as error:
        return None, f"out of memory ({error})"
    except Exception as error:  # whatever an objective raises becomes the cell's reason
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
