"""Unit of a metric: how its value is printed."""

from __future__ import annotations

from typing import Literal

Unit = Literal["percent", "number"]
"""percent: a fraction, printed times 100 with one decimal; number: printed as it is, with two."""


def in_unit(value: float, unit: Unit = "percent", *, signed: bool = False) -> str:
    """A value as tables print it.

    >>> in_unit(0.1234), in_unit(-0.02, signed=True), in_unit(1.318, "number")
    ('12.3', '-2.0', '1.32')
    """
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}" if unit == "percent" else f"{value:{sign}.2f}"
