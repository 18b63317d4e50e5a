"""The picture of word-to-patch maps: words of a caption side by side, models and their patch paths one under the other.

All maps share one scale of colours: how far a patch's score lies above or below the mean of its map, in standard
deviations of that model's scores by that path. So neither the scale of a model's scores nor the level of a word shows,
only where in the image a word scores high. A map lies on the part of the image that its patches cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sparc_bench.report.fonts import drawable, families
from sparc_bench.report.png import write_png
from sparc_bench.report.text_size import width, wrapped
from sparc_bench.report.word_maps import Caption, WordMaps

COLUMNS = 8
"""Words side by side; further ones stand below them."""

CELL, GAP, EDGE, PICTURE = 1.15, 0.08, 0.15, 1.5
"""Inches: longer edge of a map, space between two, space around all, longer edge of the image at the top."""

FURTHEST = 3
"""Standard deviations at the ends of the colour bar."""

COLOURS = "RdBu_r"

_SMALL, _WORD, _CAPTION = 8, 11, 13
"""Points: labels, words above maps, the caption."""

_LINE, _WORD_LINE, _CAPTION_LINE = 0.155, 0.2, 0.27
"""Inches: a line of each of them."""

_LABEL = 1.9
"""Inches that the labels of rows take at most."""

_BAR = 3.4
"""Inches: width of the colour bar, which the head has at least beside the image."""

_BAND_GAP = 0.1

_DPI = 150
_MOST_PIXELS = 600
"""Longer edge of an image as it is drawn."""

_BAR_LABEL = "score of patch and word: standard deviations above the mean of the map"
_RULES = {
    True: ("words in the caption", "cosine of a patch with the word's own token vectors, the caption read as a whole"),
    False: ("each word alone", "the model's own score of a patch for the word as a text of its own"),
}
"""`WordMaps.in_caption` -> the rule in few words, and in full."""

_NOT_READ = "not read: the caption is longer than the model reads, or the word has no token of it."
_NO_FONT = "Letters that no font here has stand as their code points, such as U+4E2D."


def save(image: Image.Image, caption: Caption, rows: Sequence[WordMaps], path: Path) -> None:
    """Draw and write a PNG."""
    write_png(draw(image, caption, rows), path)


def draw(image: Image.Image, caption: Caption, rows: Sequence[WordMaps]) -> Any:  # noqa: ANN401 - matplotlib has no types
    """The figure."""
    return _Page(image, caption, rows).draw()


def _fitted(image: Image.Image, most: float) -> tuple[float, float]:
    """Width and height in inches of an image whose longer edge is `most`."""
    longer = max(image.size)
    return max(0.1, most * image.width / longer), max(0.1, most * image.height / longer)


class _Page:
    """Layout of the picture in inches, from the left and from the top."""

    def __init__(self, image: Image.Image, caption: Caption, rows: Sequence[WordMaps]) -> None:
        self.image, self.caption, self.rows = image, caption, rows
        self.small = image.copy()
        self.small.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        # pixels of a small image are seen as they are
        self.smoothing = "nearest" if max(image.size) < PICTURE * _DPI else "antialiased"
        self.fonts = families("".join(caption.parts))
        self.labels = [_label(row) for row in rows]
        self.words = [wrapped(self._text(word), 1.25 * CELL, _WORD, True, self.fonts) for word in caption.words]
        self.cell = _fitted(image, CELL)
        self.picture = _fitted(image, PICTURE)
        widest_word = max(width(line, _WORD, True, self.fonts) for lines in self.words for line in lines)
        self.column = GAP + max(self.cell[0], widest_word + 0.06)
        labels = max(width(line, _SMALL, number == 0) for lines in self.labels for number, line in enumerate(lines))
        self.left = EDGE + max(labels, self.picture[0]) + 2 * GAP
        self.bands = [range(at, min(at + COLUMNS, len(self.words))) for at in range(0, len(self.words), COLUMNS)]
        self.heights = [max(self.cell[1], _LINE * len(lines)) + GAP for lines in self.labels]
        models = [row.model for row in rows]
        # two models stand further apart than two paths of one
        self.spaces = [0.0, *(GAP * (model != before) for before, model in pairwise(models))]
        self.wide = self.left + max(len(self.bands[0]) * self.column, _BAR, width(_BAR_LABEL, _SMALL)) + EDGE
        self.caption_lines = self._caption_lines()
        self.head = max(self.picture[1], _CAPTION_LINE * len(self.caption_lines) + 0.62)
        self.foot = self._foot_lines()

    def draw(self) -> Any:  # noqa: ANN401 - as above
        from matplotlib.figure import Figure

        below = sum(map(self._height, self.bands)) + _LINE * len(self.foot)
        figure = Figure(figsize=(self.wide, EDGE + self.head + _BAND_GAP + below + EDGE), dpi=_DPI)
        self._draw_head(figure)
        top = EDGE + self.head + _BAND_GAP
        for band in self.bands:
            self._draw_band(figure, band, top)
            top += self._height(band)
        _write(figure, EDGE, top, "\n".join(self.foot), _SMALL, color="0.3", linespacing=1.3)
        return figure

    def _title(self, band: range) -> float:
        """Height of the words above a band's maps."""
        return _WORD_LINE * max(len(self.words[word]) for word in band) + 0.05

    def _height(self, band: range) -> float:
        return self._title(band) + sum(self.spaces) + sum(self.heights) + _BAND_GAP

    def _draw_band(self, figure: Any, band: range, top: float) -> None:  # noqa: ANN401 - as above
        """Maps of some words, with the words above them and the labels of the rows to their left."""
        top += self._title(band)
        style: dict[str, Any] = {"fontweight": "bold", "ha": "center", "va": "bottom", "family": list(self.fonts)}
        for column, word in enumerate(band):
            middle = self.left + (column + 0.5) * self.column
            _write(figure, middle, top - 0.03, "\n".join(self.words[word]), _WORD, **style)
        for row, label, space, height in zip(self.rows, self.labels, self.spaces, self.heights, strict=True):
            top += space
            self._draw_label(figure, label, top + (height - GAP) / 2)
            for column, word in enumerate(band):
                left = self.left + (column + 0.5) * self.column - self.cell[0] / 2
                panel = _axes(figure, left, top + (height - GAP - self.cell[1]) / 2, *self.cell)
                self._draw_map(panel, row, word)
            top += height

    def _foot_lines(self) -> list[str]:
        """Meaning of the row labels that the picture shows, in lines."""
        rules = dict.fromkeys(row.in_caption for row in self.rows)
        sentences = ["; ".join(f"{_RULES[rule][0]}: {_RULES[rule][1]}" for rule in rules) + "."]
        if any(np.isnan(row.scores_WYX).any() for row in self.rows):
            sentences.append(_NOT_READ)
        if any(self._text(part) != part for part in self.caption.parts):
            sentences.append(_NO_FONT)
        return [line for sentence in sentences for line in wrapped(sentence, self.wide - 2 * EDGE, _SMALL)]

    def _text(self, part: str) -> str:
        return drawable(part, self.fonts)

    def _caption_lines(self) -> list[list[tuple[float, str, bool]]]:
        """The caption line by line: place from the left, text, and whether the text has a map."""
        space = width("a a", _CAPTION) - width("aa", _CAPTION)
        lines: list[list[tuple[float, str, bool]]] = [[]]
        at = self.left
        for number, part in enumerate(self.caption.parts):
            bold = number in self.caption.drawn
            at += 0.0 if number in self.caption.joined or not lines[-1] else space
            for piece in wrapped(self._text(part), self.wide - EDGE - self.left, _CAPTION, bold, self.fonts):
                wide = width(piece, _CAPTION, bold, self.fonts)
                if lines[-1] and at + wide > self.wide - EDGE:
                    lines.append([])
                    at = self.left
                lines[-1].append((at, piece, bold))
                at += wide
        return lines

    def _draw_head(self, figure: Any) -> None:  # noqa: ANN401 - as above
        panel = _axes(figure, EDGE, EDGE, *self.picture)
        panel.imshow(self.small, interpolation=self.smoothing, aspect="auto")
        for number, line in enumerate(self.caption_lines):
            top = EDGE + number * _CAPTION_LINE
            for left, text, bold in line:
                style = {"fontweight": "bold"} if bold else {"color": "0.55"}
                _write(figure, left, top, text, _CAPTION, family=list(self.fonts), **style)
        self._draw_bar(figure, EDGE + self.head - 0.5)

    def _draw_bar(self, figure: Any, top: float) -> None:  # noqa: ANN401 - as above
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        _write(figure, self.left, top, _BAR_LABEL, _SMALL)
        panel = _axes(figure, self.left, top + 0.19, _BAR, 0.12)
        scale = ScalarMappable(Normalize(-FURTHEST, FURTHEST), COLOURS)
        ticks = range(-FURTHEST, FURTHEST + 1)
        bar = figure.colorbar(scale, cax=panel, orientation="horizontal", extend="both", ticks=ticks)
        bar.ax.tick_params(labelsize=_SMALL, length=2, pad=2)

    def _draw_label(self, figure: Any, lines: Sequence[str], middle: float) -> None:  # noqa: ANN401 - as above
        top = middle - _LINE * len(lines) / 2
        for number, line in enumerate(lines):
            style = {"fontweight": "bold"} if number == 0 else {"color": "0.3"}
            _write(figure, EDGE, top + number * _LINE, line, _SMALL, **style)

    def _draw_map(self, panel: Any, row: WordMaps, word: int) -> None:  # noqa: ANN401 - as above
        whole = (0, self.image.width, self.image.height, 0)
        grey = {"cmap": "gray", "vmin": -60, "vmax": 255, "interpolation": self.smoothing}
        panel.imshow(self.small.convert("L"), extent=whole, aspect="auto", **grey)
        map_YX = row.deviations_WYX[word]
        left, top, right, bottom = row.area
        if not np.isnan(map_YX).any():
            style = {"cmap": COLOURS, "vmin": -FURTHEST, "vmax": FURTHEST, "alpha": 0.75, "interpolation": "nearest"}
            panel.imshow(map_YX, extent=(left, right, bottom, top), aspect="auto", **style)
        else:
            panel.text(0.5, 0.5, "not read", fontsize=_SMALL, ha="center", va="center", transform=panel.transAxes)
        panel.set_xlim(0, self.image.width)
        panel.set_ylim(self.image.height, 0)


def _label(row: WordMaps) -> list[str]:
    """Lines of a row's label, the model's name first."""
    path = f"path {row.path}" + ("" if row.trained else ", untrained")
    lines = [path, _RULES[row.in_caption][0], f"1 s.d. = {row.deviation:.2g}"]
    below = [part for line in lines for part in wrapped(line, _LABEL, _SMALL)]
    return [*wrapped(row.model, _LABEL, _SMALL, bold=True), *below]


def _axes(figure: Any, left: float, top: float, wide: float, high: float) -> Any:  # noqa: ANN401 - as above
    """A panel without ticks."""
    of_wide, of_high = figure.get_size_inches()
    panel = figure.add_axes((left / of_wide, 1 - (top + high) / of_high, wide / of_wide, high / of_high))
    panel.set_xticks([])
    panel.set_yticks([])
    return panel


def _write(figure: Any, left: float, top: float, text: str, size: int, va: str = "top", **style: Any) -> None:  # noqa: ANN401 - as above
    wide, high = figure.get_size_inches()
    figure.text(left / wide, 1 - top / high, text, fontsize=size, va=va, parse_math=False, **style)
