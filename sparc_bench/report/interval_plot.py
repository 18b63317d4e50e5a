"""Pictures of headline values: a panel for each metric, a line for each model, in the same order in all panels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparc_bench.files.atomic import write_atomic
from sparc_bench.report.overview import Reference, condensed
from sparc_bench.report.ranking import CEILINGS, Section

COLUMNS = 6
WIDTH, LINE, TITLE = 3.3, 0.26, 0.85
"""Inches: width of a panel, height of a model's line, height of a panel's title and axis."""

_LETTERS = 46
"""Of a panel's title in one line."""

_COLOURS = ("C2", "C3", "C1", "C4", "C8", "C6")
_FLOOR_LINES = (":", (0, (4, 1, 1, 1)), (0, (1, 2.5)), (0, (1, 0.6)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 2)))
_CEILING_LINES = ("-", "--", (0, (7, 3)))


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

    @property
    def lines(self) -> int:
        """Lines of panels."""
        return -(-len(self.panels) // COLUMNS)

    @property
    def height(self) -> float:
        """Inches."""
        return 0.45 + self.lines * (TITLE + LINE * (len(self.models) + 0.4))


def save(blocks: Sequence[Block], path: Path) -> None:
    """Draw and write a PNG: intervals (grey: not clear of reference rows, hollow: untrained path), reference rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    kinds = {reference.kind for block in blocks for _, section in block.panels for reference in _drawn(section)}
    # the kinds differ in line style too, so that the picture can be read without colours
    ceilings, floors = sorted(kinds & CEILINGS), sorted(kinds - CEILINGS)
    styles: dict[str, dict[str, Any]]
    styles = {kind: {"color": "black", "ls": _CEILING_LINES[i % 3]} for i, kind in enumerate(ceilings)}
    styles |= {kind: {"color": _COLOURS[i % 6], "ls": _FLOOR_LINES[i % 6]} for i, kind in enumerate(floors)}
    columns = min(COLUMNS, max(len(block.panels) for block in blocks))
    heights = [0.6, *(block.height for block in blocks)]
    figure = Figure(figsize=(1.8 + WIDTH * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    for block, part in zip(blocks, parts[1:], strict=True):
        part.suptitle(block.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels = part.subplots(block.lines, columns, squeeze=False, sharey=True).ravel()
        for panel, (title, section) in zip(panels, block.panels, strict=False):
            _draw(panel, title, section, block, styles)
        for panel in panels[len(block.panels) :]:
            panel.set_axis_off()
    handles = [Line2D([], [], label=kind, color=style["color"], ls=style["ls"]) for kind, style in styles.items()]
    handles += [
        Line2D([], [], label="clear of its reference rows", color="C0", marker="o"),
        Line2D([], [], label="not clear", color="gray", marker="o"),
        Line2D([], [], label="untrained path", color="gray", marker="o", markerfacecolor="white"),
    ]
    parts[0].legend(handles=handles, loc="center", ncols=min(len(handles), 2 * columns), fontsize=9, frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomic(path, buffer.getvalue())


def _draw(panel: Any, title: str, section: Section, block: Block, styles: Mapping[str, Mapping[str, Any]]) -> None:  # noqa: ANN401 - matplotlib has no types
    end = _end(section)
    for reference in _drawn(section):
        _reference(panel, reference, styles[reference.kind])
    by_model = {row.model: row for row in section.rows}
    for place, model in enumerate(block.models):
        row = by_model.get(model)
        if model in block.headings:
            panel.axhspan(place - 0.5, place + 0.5, color="gray", alpha=0.12, linewidth=0)
        elif row is None:
            note = block.notes.get(model, "")
            on_white = {"facecolor": "white", "edgecolor": "none", "pad": 1} if note else None
            panel.text(0.02 * end, place, note, fontsize=7, va="center", bbox=on_white)
        else:
            colour = "C0" if row.clear else "gray"
            panel.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=2)
            face = colour if row.trained_path else "white"
            panel.plot([100 * row.value], [place], "o", color=colour, markerfacecolor=face, markersize=5)
    panel.set_yticks(range(len(block.models)), block.models)
    for tick, model in zip(panel.yaxis.get_major_ticks(), block.models, strict=True):
        tick.label1.set_weight("bold" if model in block.headings else "normal")
    panel.set_ylim(len(block.models) - 0.4, -0.6)
    panel.set_xlim(0, end)
    panel.set_title(textwrap.fill(title, _LETTERS), loc="left", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", linewidth=0.3)


def _end(section: Section) -> float:
    """Right end of the axis, in per cent: what models and floors take."""
    floors = [reference.high for reference in condensed(section.references) if reference.kind not in CEILINGS]
    return min(102.0, 112 * max([0.01, *floors, *(row.high for row in section.rows)]))


def _drawn(section: Section) -> list[Reference]:
    """Reference rows on the axis; a ceiling far above every model would squeeze the models together."""
    return [reference for reference in condensed(section.references) if 100 * reference.low <= _end(section)]


def _reference(panel: Any, reference: Reference, style: Mapping[str, Any]) -> None:  # noqa: ANN401
    if reference.high > reference.low:
        panel.axvspan(100 * reference.low, 100 * reference.high, color=style["color"], alpha=0.15, linewidth=0)
    for value in {reference.low, reference.high}:
        panel.axvline(100 * value, linewidth=1.3, **style)
