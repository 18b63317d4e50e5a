"""Figures of matplotlib as PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from sparc_bench.files.atomic import write_atomic


def write_png(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib has no types
    """Write a figure at its own size and resolution; an interrupted write leaves the old file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomic(path, buffer.getvalue())
