"""Width of a text in a picture, before the picture is laid out."""

from __future__ import annotations

from functools import cache
from typing import Any

from sparc_bench.report.fonts import DEFAULT

DPI = 100


@cache
def _renderer() -> Any:  # noqa: ANN401 - matplotlib has no types
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


@cache
def _font(size: float, bold: bool, fonts: tuple[str, ...]) -> Any:  # noqa: ANN401 - as above
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(fonts), size=size, weight="bold" if bold else "normal")


def width(text: str, size: float, bold: bool = False, fonts: tuple[str, ...] = (DEFAULT,)) -> float:
    """Width of one line in inches; `fonts` are families that together have its letters.

    >>> width("", 8), width("iiii", 8) < width("mmmm", 8) < width("mmmm", 9)
    (0.0, True)
    """
    if not text:
        return 0.0
    pixels, _, _ = _renderer().get_text_width_height_descent(text, _font(size, bold, fonts), ismath=False)
    return float(pixels) / DPI


def wrapped(text: str, most: float, size: float, bold: bool = False, fonts: tuple[str, ...] = (DEFAULT,)) -> list[str]:
    """The text in lines no wider than `most` inches, broken between words, and within a word that is wider than that.

    >>> wrapped("one two three", width("one two", 8), 8)
    ['one two', 'three']
    >>> wrapped("onetwo", width("one", 8), 8)
    ['one', 'two']
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if width(joined, size, bold, fonts) <= most:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and width(lines[-1] + letter, size, bold, fonts) > most:
                lines.append("")
            lines[-1] += letter
    return lines
