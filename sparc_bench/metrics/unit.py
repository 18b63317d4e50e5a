"""Unit of a metric: how its value is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Unit = Literal["percent", "number"]
"""percent: a fraction, printed times 100 with one decimal; number: printed as it is, with two."""


SIGNS: Mapping[Unit, str] = {"percent": "%", "number": ""}
"""Unit -> sign that heads a column of its values."""


def in_unit(value: float, unit: Unit = "percent", *, signed: bool = False, further: int = 0) -> str:
    """A value as tables print it, with so many further decimals.

    >>> in_unit(0.1234), in_unit(-0.02, signed=True), in_unit(1.318, "number"), in_unit(0.6334, further=1)
    ('12.3', '-2.0', '1.32', '63.34')
    """
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.{1 + further}f}" if unit == "percent" else f"{value:{sign}.{2 + further}f}"
