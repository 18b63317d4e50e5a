"""Checks and their findings, of a model (`sparc-bench verify`) or of a data set (`sparc-bench data check`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # which needs torch
    from sparc_bench.verify.probed_model import ProbedModel

Status = Literal["ok", "note", "warning", "fail", "left out", "not judged"]
"""note: worth knowing; warning: numbers may be off; fail: numbers are wrong; left out: the check does not apply;
not judged: a check that has to pass first failed."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        status: ok, or how severe the finding is.
        measured: the measured value, in a few words.
        expected: the right value, in a few words.
        advice: a sentence that names the thing to change; empty where there is nothing to do.
    """

    status: Status
    measured: str
    expected: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One check of a model.

    Attributes:
        name: name in the printed table.
        measure: function that runs the check; any exception in it is a failure of the encoder.
        gives: entries that `Encoder.gives` needs for the check to apply.
        stored: True where the check applies to encoders with stored vectors too (see `StoresVectors`).
        after: names of checks that have to pass first.
    """

    name: str
    measure: Callable[[ProbedModel], Finding]
    gives: frozenset[str] = frozenset()
    stored: bool = False
    after: tuple[str, ...] = ()


def left_out(reason: str) -> Finding:
    """The finding of a check that does not apply."""
    return Finding("left out", reason)
