"""The colour and dash of every kind of reference row: the same in all pictures, whatever else a picture shows.

The rows of a picture of values differ in dash too, so that it can be read without colours. Ceilings are black.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

Dash = str | tuple[float, tuple[float, ...]]
"""A line style of matplotlib: a name, or an offset and the lengths of strokes and gaps in line widths."""


@dataclass(frozen=True)
class LineStyle:
    """Line style of a reference row."""

    colour: str
    dash: Dash

    def options(self) -> dict[str, Any]:
        """Options of matplotlib's `Line2D`."""
        return {"color": self.colour, "linestyle": self.dash}


STYLES = {
    "chance": LineStyle("#c8102e", (0, (1, 1))),
    "constant": LineStyle("#e69f00", (0, (5, 1, 1, 1))),
    "random": LineStyle("#b0439a", (0, (1, 2))),
    "untrained": LineStyle("#009e73", (0, (4, 1.5))),
    "blind": LineStyle("#8c564b", (0, (5, 1, 1, 1, 1, 1))),
    "best_prior": LineStyle("#7b61ff", (0, (9, 2))),
    "random_caption": LineStyle("#a6a600", (0, (2, 1))),
    "oracle": LineStyle("black", "solid"),
    "ceiling": LineStyle("black", (0, (6, 2.5))),
    "human": LineStyle("black", (0, (9, 2, 2, 2))),
    "published": LineStyle("gray", "solid"),
}
"""Kind of reference row -> its style. "published" is what a paper states."""

_OTHER_COLOURS = ("#b2182b", "#1b7837", "#762a83", "#bf5b17", "#e7298a")
_OTHER_DASHES: tuple[Dash, ...] = ((0, (3, 1, 1, 1, 1, 1)), (0, (2, 2, 5, 2)), (0, (1, 1, 1, 4)), (0, (7, 1, 2, 1)))


def line_style(kind: str) -> LineStyle:
    """The style of a kind of reference row; of one that a plug-in brought by its name alone, so that it stays the same.

    >>> line_style("oracle") == STYLES["oracle"], line_style("majority") == line_style("majority")
    (True, True)
    """
    if kind in STYLES:
        return STYLES[kind]
    number = crc32(kind.encode())
    colour = _OTHER_COLOURS[number % len(_OTHER_COLOURS)]
    return LineStyle(colour, _OTHER_DASHES[number // len(_OTHER_COLOURS) % len(_OTHER_DASHES)])
