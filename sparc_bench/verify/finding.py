"""What a check of the pre-flight found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sparc_bench.verify.subject import Subject

Status = Literal["ok", "note", "warning", "fail", "left out", "not judged"]
"""note: worth knowing; warning: numbers may be off; fail: numbers are wrong; left out: does not apply; not judged: a
check that this one builds on has failed."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        status: how bad it is.
        measured: what came out, in a few words.
        expected: what would be right, in a few words.
        advice: a sentence that names what to change; empty where there is nothing to do.
    """

    status: Status
    measured: str
    expected: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One check of the pre-flight.

    Attributes:
        name: as the table prints it.
        measure: the check itself; whatever it raises is a failure of the encoder.
        gives: what a model must give for the check to apply.
        stored: whether it says anything of vectors that are looked up instead of computed.
        after: checks that must not have failed for this one to mean anything.
    """

    name: str
    measure: Callable[[Subject], Finding]
    gives: frozenset[str] = frozenset()
    stored: bool = False
    after: tuple[str, ...] = ()


def left_out(reason: str) -> Finding:
    """The finding of a check that does not apply."""
    return Finding("left out", reason)
