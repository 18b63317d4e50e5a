"""Limits of time and memory for a test of hostile files: what hangs fails, instead of holding up all other tests."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
from collections.abc import Iterator

GIB = 2**30


@contextlib.contextmanager
def limited(seconds: int, gib: float) -> Iterator[None]:
    """Fail after so many seconds, or at more memory than before by so much, where the system can tell.

    A hang within a library, which sees no signal, ends the process with a traceback after twice the time.
    """
    before = peak_gib()
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    old = signal.signal(signal.SIGALRM, _late) if hasattr(signal, "setitimer") else None
    try:
        if old is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        with _address_space(int((gib + 8) * GIB)):
            yield
    finally:
        if old is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        faulthandler.cancel_dump_traceback_later()
    assert peak_gib() - before < gib


def peak_gib() -> float:
    """Largest memory of this process so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


@contextlib.contextmanager
def _address_space(more: int) -> Iterator[None]:
    """On Linux, no more address space than now by so many bytes, so that a bomb fails before the machine does."""
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no file of ours
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _late(*_: object) -> None:
    raise AssertionError("it takes too long")
