"""A function call in a fresh process, so that its peak memory can be measured.

Processes are forked from a server that has imported torch and computed nothing, so that none imports it again. The
resident memory of a child starts with the libraries' allocations (about 0.5 GB), and its peak is its own; pages of
library files that only an import reads (about 0.3 GB more in a process with its own import) are not included.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sparc_bench.cost.cell import Cell, StepCost
from sparc_bench.errors import NO_MEMORY, shortened

PRELOADED = ["sparc_bench.cost.cell"]


class DoesNotFitError(Exception):
    """Not enough memory or time for a cell; the message says which."""


class CellFailedError(Exception):
    """Failure of a cell's code; the message is the error."""


def in_fresh_process(measure: Callable[[Cell], StepCost], cell: Cell, seconds: float) -> StepCost:
    """The result of `measure(cell)` in a fresh process.

    Raises:
        DoesNotFitError: the process ran out of memory, was killed, or took longer than `seconds`.
        CellFailedError: any other failure.
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
        cost, error = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise DoesNotFitError("memory: the system killed the process") from None
        raise CellFailedError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    return _cost_or_raise(cost, error)


def in_this_process(measure: Callable[[Cell], StepCost], cell: Cell) -> StepCost:
    """The result of `measure(cell)` in this process (a GPU counts allocated memory); raises the same errors."""
    import gc

    import torch

    cost, error = _outcome(measure, cell)
    gc.collect()
    torch.cuda.empty_cache()
    return _cost_or_raise(cost, error)


def _cost_or_raise(cost: StepCost | None, error: str | None) -> StepCost:
    if cost is not None:
        return cost
    assert error is not None
    if any(words in error for words in NO_MEMORY):
        raise DoesNotFitError(f"memory: {error}")
    raise CellFailedError(error)


def _child(sender: Connection, measure: Callable[[Cell], StepCost], cell: Cell) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its children
    sender.send(_outcome(measure, cell))


def _outcome(measure: Callable[[Cell], Any], cell: Cell) -> tuple[StepCost | None, str | None]:
    try:
        return measure(cell), None
    except MemoryError as error:
        return None, f"out of memory ({error})"
    except Exception as error:  # any error of an objective becomes the cell's reason
        return None, f"{type(error).__name__}: {shortened(str(error), 300)}"
