"""CPU time of the training steps alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager


class CpuClock:
    """CPU seconds of this process, with all its threads, and of its processes that ended, since it was made.

    A loader's processes count from their end on, which is when the batches are used up.
    """

    def __init__(self) -> None:
        self._began, self._paused, self._lap = _used(), 0.0, 0.0

    @property
    def seconds(self) -> float:
        """CPU seconds up to now, without the pauses."""
        return _used() - self._began - self._paused

    def lap(self) -> float:
        """CPU seconds since the last lap."""
        now = self.seconds
        lap, self._lap = now - self._lap, now
        return lap

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What the block uses does not count."""
        before = _used()
        try:
            yield
        finally:
            self._paused += _used() - before


def _used() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system
