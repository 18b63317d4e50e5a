"""Pictures of headline values: a panel for each metric, a line for each model, in the same order in all panels.

Places follow from the widths of the texts, so that no text is clipped and no layout has to be searched for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparc_bench.foreign_text import visible
from sparc_bench.report.fonts import DEFAULT, drawable
from sparc_bench.report.overview import ReferenceRange, condensed
from sparc_bench.report.png import write_png
from sparc_bench.report.ranking import CEILINGS, Section
from sparc_bench.report.reference_style import line_style
from sparc_bench.report.text_size import DPI, width, wrapped

COLUMNS = 6
PANEL, GAP, EDGE = 2.85, 0.38, 0.12
"""Inches: width of a panel, space between two, space around the picture."""

LINE, TEXT_LINE, AXIS, HEADING_LINE = 0.25, 0.14, 0.32, 0.22
"""Inches: height of a model's line, of a line of a panel's title, of the axis under a panel, of a block's title."""

_SMALL, _LARGE, _LEGEND = 8, 11, 9
_HANDLE, _SPACE = 0.45, 0.25
"""Inches: a line of the legend and the space after its text."""

_TICKS = 5


@dataclass(frozen=True)
class Block:
    """Panels that share their models.

    Attributes:
        title: above them.
        panels: (title, section).
        models: top to bottom.
        notes: model -> what is written where it has no row.
        headings: those of `models` that are no model but the heading of what follows.
    """

    title: str
    panels: Sequence[tuple[str, Section]]
    models: Sequence[str]
    notes: Mapping[str, str] = field(default_factory=dict)
    headings: frozenset[str] = frozenset()

    def label_width(self) -> float:
        """Inches that the widest name takes."""
        return max((width(name, _SMALL, name in self.headings) for name in self.models), default=0.0)


def save(blocks: Sequence[Block], path: Path) -> None:
    """Draw and write a PNG."""
    write_png(draw(blocks), path)


def draw(blocks: Sequence[Block]) -> Any:  # noqa: ANN401 - matplotlib has no types
    """The figure: intervals (grey: not clear of reference rows, hollow: untrained path) and reference rows."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(len(block.panels) for block in blocks))
    margin = EDGE + max(block.label_width() for block in blocks) + 0.1
    wide = margin + columns * PANEL + (columns - 1) * GAP + GAP
    legend = _legend_rows(_handles(blocks), wide - 2 * EDGE)
    placed = [_Placed.of(block, columns, wide - 2 * EDGE) for block in blocks]
    height = 2 * EDGE + LINE * len(legend) + sum(each.height for each in placed)
    figure = Figure(figsize=(wide, height), dpi=DPI)
    top = EDGE
    for handles in legend:
        _draw_legend_row(figure, handles, top + LINE / 2)
        top += LINE
    for each in placed:
        each.draw(figure, margin, top)
        top += each.height
    return figure


@dataclass(frozen=True)
class _Placed:
    """A block with its texts in lines, and so with its height.

    Attributes:
        block: that is drawn.
        heading: lines of its title.
        rows: the panels side by side, each with the lines of its title.
    """

    block: Block
    heading: Sequence[str]
    rows: Sequence[Sequence[tuple[Sequence[str], Section]]]

    @classmethod
    def of(cls, block: Block, columns: int, most: float) -> _Placed:
        panels = [(wrapped(_drawable(title), PANEL, _SMALL), section) for title, section in block.panels]
        rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
        return cls(block, wrapped(_drawable(block.title), most, _LARGE, bold=True), rows)

    @property
    def _panel(self) -> float:
        return LINE * (len(self.block.models) + 0.4)

    @property
    def height(self) -> float:
        titles = sum(TEXT_LINE * max(len(lines) for lines, _ in row) for row in self.rows)
        return 0.16 + HEADING_LINE * len(self.heading) + titles + len(self.rows) * (0.06 + self._panel + AXIS)

    def draw(self, figure: Any, margin: float, top: float) -> None:  # noqa: ANN401 - as above
        """Panels from `margin` on, all of it from `top` down, in inches."""
        wide, high = figure.get_size_inches()
        top += 0.16
        _text(figure, EDGE, top, "\n".join(self.heading), fontsize=_LARGE, fontweight="bold")
        top += HEADING_LINE * len(self.heading)
        for row in self.rows:
            top += TEXT_LINE * max(len(lines) for lines, _ in row) + 0.06
            for column, (lines, section) in enumerate(row):
                left = margin + column * (PANEL + GAP)
                box = (left / wide, 1 - (top + self._panel) / high, PANEL / wide, self._panel / high)
                panel = figure.add_axes(box)
                _draw_panel(panel, section, self.block, named=column == 0)
                _text(figure, left, top - 0.04, "\n".join(lines), fontsize=_SMALL, va="bottom", linespacing=1.05)
            top += self._panel + AXIS


def _drawable(title: str) -> str:
    """A title without signs that no font here has: a record's author may have written it."""
    return drawable(visible(title), (DEFAULT,))


def _text(figure: Any, left: float, top: float, text: str, va: str = "top", **style: Any) -> None:  # noqa: ANN401 - as above
    wide, high = figure.get_size_inches()
    figure.text(left / wide, 1 - top / high, text, va=va, parse_math=False, **style)


def _draw_panel(panel: Any, section: Section, block: Block, named: bool) -> None:  # noqa: ANN401 - as above
    end, scale = _end(section), _scale(section)
    for reference in _drawn(section):
        _reference(panel, reference, scale)
    by_model = {row.model: row for row in section.rows}
    points: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    for place, model in enumerate(block.models):
        row = by_model.get(model)
        if model in block.headings:
            panel.axhspan(place - 0.5, place + 0.5, color="gray", alpha=0.12, linewidth=0)
        elif row is not None:
            colour = "C0" if row.clear else "gray"
            panel.plot([scale * row.low, scale * row.high], [place, place], color=colour, linewidth=2)
            points.setdefault((colour, row.trained_path), []).append((scale * row.value, place))
        elif note := block.notes.get(model, ""):
            on_white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            panel.text(0.02 * end, place, note, fontsize=_SMALL - 1, va="center", bbox=on_white, parse_math=False)
    for (colour, trained), of in points.items():
        marker = {"marker": "o", "markersize": 5, "markerfacecolor": colour if trained else "white"}
        panel.plot(*zip(*of, strict=True), linestyle="none", color=colour, clip_on=False, zorder=3, **marker)
    panel.set_xlim(0, end)
    ticks = _ticks(end)
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.tick_params(labelsize=_SMALL)
    panel.set_ylim(len(block.models) - 0.4, -0.6)
    panel.set_yticks([])
    panel.hlines(range(len(block.models)), 0, end, color="#b0b0b0", linewidth=0.3, zorder=0)
    if named:
        right = {"x": -0.08 / PANEL, "transform": panel.get_yaxis_transform(), "ha": "right", "va": "center"}
        for place, model in enumerate(block.models):
            weight = "bold" if model in block.headings else "normal"
            panel.text(y=place, s=model, fontsize=_SMALL, fontweight=weight, parse_math=False, **right)


def _end(section: Section) -> float:
    """Right end of the axis in the metric's unit, beyond the models and floors."""
    floors = [reference.high for reference in condensed(section) if reference.kind not in CEILINGS]
    end = 1.12 * max([0.01, *floors, *(row.high for row in section.rows)])
    return min(102.0, 100 * end) if section.unit == "percent" else end


def _scale(section: Section) -> float:
    """Factor from a value to the axis."""
    return 100.0 if section.unit == "percent" else 1.0


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to the end, few enough for their labels not to touch."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(_TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end)
    return [round(float(tick), 6) for tick in ticks if 0 <= tick <= end]


def _drawn(section: Section) -> list[ReferenceRange]:
    """Reference rows on the axis; a ceiling far above every model would squeeze the models together."""
    return [reference for reference in condensed(section) if _scale(section) * reference.low <= _end(section)]


def _reference(panel: Any, reference: ReferenceRange, scale: float) -> None:  # noqa: ANN401 - as above
    style = line_style(reference.kind)
    if reference.high > reference.low:
        panel.axvspan(scale * reference.low, scale * reference.high, color=style.colour, alpha=0.15, linewidth=0)
    for value in {reference.low, reference.high}:
        panel.axvline(scale * value, linewidth=1.3, **style.options())


def _handles(blocks: Sequence[Block]) -> list[tuple[str, dict[str, Any]]]:
    """Text and line of every entry of the legend: ceilings, floors, then what marks a model's row."""
    kinds = {reference.kind for block in blocks for _, section in block.panels for reference in _drawn(section)}
    ordered = [*sorted(kinds & CEILINGS), *sorted(kinds - CEILINGS)]
    return [
        *((_drawable(kind), line_style(kind).options()) for kind in ordered),
        ("clear of its reference rows", {"color": "C0", "marker": "o"}),
        ("not clear", {"color": "gray", "marker": "o"}),
        ("untrained path", {"color": "gray", "marker": "o", "markerfacecolor": "white"}),
    ]


def _legend_rows(
    handles: Sequence[tuple[str, dict[str, Any]]], most: float
) -> list[list[tuple[float, str, dict[str, Any]]]]:
    """The entries in rows no wider than `most` inches, each with the place of its line."""
    rows: list[list[tuple[float, str, dict[str, Any]]]] = [[]]
    left = 0.0
    for label, style in handles:
        needed = _HANDLE + width(label, _LEGEND)
        if rows[-1] and left + needed > most:
            rows.append([])
            left = 0.0
        rows[-1].append((EDGE + left, label, style))
        left += needed + _SPACE
    return rows


def _draw_legend_row(figure: Any, entries: Sequence[tuple[float, str, dict[str, Any]]], middle: float) -> None:  # noqa: ANN401 - as above
    from matplotlib.lines import Line2D

    wide, high = figure.get_size_inches()
    level = 1 - middle / high
    for left, label, style in entries:
        ends = [left / wide, (left + _HANDLE / 2) / wide, (left + _HANDLE - 0.08) / wide]
        figure.add_artist(Line2D(ends, [level] * 3, markevery=[1], linewidth=1.5, **style))
        _text(figure, left + _HANDLE, middle, label, va="center_baseline", fontsize=_LEGEND)
