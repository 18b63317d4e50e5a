"""Signals that ask a command to stop: Ctrl-C, SIGTERM (`kill`, a scheduler, a container) and SIGUSR1 (a scheduler).

Outside of a training step they end the command at once, as an exception; during one they are noted, and the step ends
first. A second signal ends the command at once in any case.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from sparc_bench.errors import StoppedError

STOPS = [number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None)) is not None]
"""Signals that ask to stop; Windows has no SIGUSR1."""

GOES_ON = "what is finished is kept, and the same command goes on from it."
"""End of the sentence of a stopped command."""


def name_of(number: int) -> str:
    """Name of a signal as a person would say it.

    >>> name_of(15), name_of(2)
    ('SIGTERM', 'Ctrl-C')
    """
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Signals raise StoppedError within the block; nothing changes outside of the main thread."""
    with _handled(raise_stopped):
        yield


class StopRequest:
    """A request to stop that is noted within `noted()` and raised as StoppedError within `at_once()`.

    Attributes:
        number: the signal that came; 0 before one came.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """The first signal within the block is noted; a second one raises StoppedError."""
        with _handled(self._note):
            yield

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal within the block raises StoppedError, and so does one that was noted before."""
        self._at_once = True
        try:
            if self.number:
                raise_stopped(self.number)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: FrameType | None = None) -> None:
        second = self.number != 0
        self.number = number
        if second or self._at_once:
            raise_stopped(number)


def ignore() -> None:
    """Leave signals to the main process: for worker processes, which a signal to the whole group reaches too."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def raise_stopped(number: int, _frame: FrameType | None = None) -> NoReturn:
    """Raise StoppedError for a signal; also a handler of signals."""
    raise StoppedError(f"Stopped by {name_of(number)}: {GOES_ON}", number)


@contextlib.contextmanager
def _handled(handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in STOPS}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
