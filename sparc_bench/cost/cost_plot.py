"""The plot of the cost table: each objective's step time, memory and FLOPs as ratios to CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparc_bench.cost.cost_rows import BASE, CostRow, published
from sparc_bench.report.png import write_png
from sparc_bench.report.reference_style import line_style
from sparc_bench.report.text_size import width

PANELS: Sequence[tuple[str, str]] = (
    ("Time of a step", "step_ratio"),
    ("Peak memory", "peak_ratio"),
    ("Counted FLOPs", "flop_ratio"),
)
"""Title and column of each panel."""

WIDTH = 15
"""Inches."""

MARKERS = "osDv^<>p*h"

_PUBLISHED = line_style("published").options()

TICKS = (0.5, 0.7, 1, 1.2, 1.5, 2, 3, 4, 6, 10, 20, 50, 100)
FINE_TICKS = (0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2, 1.3, 1.4)


def plot(rows: Sequence[CostRow], path: Path) -> None:
    """Draw the plot and write it as a PNG."""
    write_png(draw(rows), path)


def draw(rows: Sequence[CostRow]) -> Any:  # noqa: ANN401 - matplotlib is untyped here
    """The figure: a panel each for time, memory and FLOPs, lines for objectives, markers for batches."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = sorted({row.objective for row in rows}, key=lambda name: (name != BASE, name))
    batches = sorted({row.batch for row in rows})
    figure = Figure(figsize=(WIDTH, 2.4 + 0.42 * len(names)), layout="constrained")
    panels: Any = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (title, column) in zip(panels, PANELS, strict=True):
        for place, name in enumerate(names):
            _published(panel, name, column, place + 0.28)
            for row in rows:
                if row.objective == name:
                    number = batches.index(row.batch)
                    _mark(panel, row, column, place - 0.28 + 0.14 * number, number)
        for place in range(1, len(names)):
            panel.axhline(place - 0.5, color="black", linewidth=0.3, alpha=0.4)
        _axes(panel)
        panel.set_title(f"{title}, x {BASE}", loc="left", fontsize=10)
    panels[0].set_yticks(range(len(names)), [_label(name, rows) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    handles = [
        Line2D([], [], label=f"batch {batch}", color=f"C{number}", marker=MARKERS[number % len(MARKERS)], ls="")
        for number, batch in enumerate(batches)
    ]
    for costs in published():
        label = f"{costs.title} ({costs.device}, batches {costs.batches[0]} to {costs.batches[-1]})"
        handles.append(Line2D([], [], label=label, marker="|", **_PUBLISHED))
    widest = 0.6 + max(width(str(handle.get_label()), 9) for handle in handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, int(WIDTH // widest)), fontsize=9)
    first = rows[0]
    towers = f"{first.model} at {first.image_size} px"
    made = f"{first.device_name}, {first.precision}, {first.repeats} runs"
    figure.suptitle(f"{towers}, {made}", fontsize=10, parse_math=False)
    return figure


def _label(name: str, rows: Sequence[CostRow]) -> str:
    texts = next((row.texts for row in rows if row.objective == name), None)
    return name if texts in (None, 1) else f"{name} ({texts} texts)"


def _published(panel: Any, name: str, column: str, height: float) -> None:  # noqa: ANN401 - as above
    for costs in published():
        ratios = [getattr(row, column) for row in costs.rows() if row.objective == name]
        if ratios and None not in ratios:
            panel.plot([min(ratios), max(ratios)], [height, height], marker="|", linewidth=1.5, **_PUBLISHED)


def _mark(panel: Any, row: CostRow, column: str, height: float, number: int) -> None:  # noqa: ANN401 - as above
    ratio: float | None = getattr(row, column)
    colour = f"C{number}"
    if ratio is None:
        panel.text(1.0, height, f" batch {row.batch}: {row.status}", va="center", fontsize=6, color=colour)
        return
    if column == "step_ratio":
        panel.plot([row.step_ratio_low, row.step_ratio_high], [height, height], color=colour, linewidth=1)
    panel.plot([ratio], [height], MARKERS[number % len(MARKERS)], color=colour, markersize=4)


def _axes(panel: Any) -> None:  # noqa: ANN401 - as above
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    low, high = min(low, 0.95), max(high, 1.1)
    panel.set_xlim(low, high)
    ticks = TICKS if high > 1.4 else FINE_TICKS
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(axis="x", alpha=0.2)
    panel.tick_params(labelsize=8)
