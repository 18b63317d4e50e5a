"""The leaderboard for people: on the screen, as a page (README.md beside the records), as CSV and as a picture.

Everything but the picture is the same, byte for byte, for the same records.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.foreign_text import code_span, csv_cell, markdown, visible
from sparc_bench.metrics.unit import SIGNS, in_unit
from sparc_bench.report import interval_plot, overview
from sparc_bench.report.ranking import Row, Section, build, reference_values

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "build",
    "frame",
    "plot",
    "publish",
    "reference_values",
    "render",
    "write_csv",
    "write_markdown",
]

PAGE = "README.md"
"""The page lies where sites that host a repository show it: with the folder of the records."""

_WRITTEN_BY = "Written by `sparc-bench leaderboard`; not edited by hand."

_COLUMNS = [
    *("task", "metric", "headline", "sample", "n", "exposure", "protocol_hash", "data_hash", "row", "name", "rank"),
    *("value", "low", "high", "seeds", "seed_low", "seed_high", "clear_of_references", "trained_path"),
    *("seed", "recipe_hash"),
]

_HOW_TO_READ = (
    "Numbers are percentages with 95 % intervals: over images where a row is of one training seed, over seeds and "
    "images where it is the mean over several. Rows are ranked in one table only where protocol, data and exposure "
    "are the same, and seeds are pooled only where they are of the same recipe. A rank is 1 plus the number of rows "
    "whose whole interval lies above; rows of one rank are not told apart. In italics: reference rows, which a result "
    "has to be clear of (constant, chance, random, untrained) or cannot be expected to pass (ceiling, oracle, human)."
)


def frame(sections: Iterable[Section]) -> DataFrame:
    """All rows as one table: values are fractions; reference rows have no interval and no rank.

    A row of several seeds (`seed` is "all") is followed by one line for each of them, whose interval is over images.
    """
    lines: list[dict[str, object]] = []
    for section in sections:
        shared: dict[str, object] = {
            "task": section.task,
            "metric": section.metric,
            "headline": section.main,
            "sample": "@sample" if section.sample else "",
            "n": section.n,
            "exposure": section.exposure,
            "protocol_hash": section.protocol_hash[:12],
            "data_hash": section.data_hash[:12],
        }
        for row in section.rows:
            lines += [{**shared, **line} for line in _row_lines(row)]
        kind = "outputs reference" if section.outputs else "reference"
        lines += [{**shared, "row": kind, "name": of.label, "value": of.value} for of in section.reference_rows]
    ours = ("sample",)  # "@sample" is a mark of this project
    lines = [{key: value if key in ours else csv_cell(value) for key, value in line.items()} for line in lines]
    from pandas import DataFrame

    return DataFrame(lines, columns=_COLUMNS).astype({"rank": "Int64", "seeds": "Int64"})


def _row_lines(row: Row) -> list[dict[str, object]]:
    shared = {
        "name": row.model,
        "exposure": str(row.exposure),
        "trained_path": row.trained_path,
        "recipe_hash": row.recipe[:12],
    }
    several = len(row.seeds) > 1
    lines: list[dict[str, object]] = [
        {
            **shared,
            "row": "outputs" if row.outputs else "model",
            "rank": row.rank,
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "seeds": len(row.seeds),
            "seed_low": min(row.seed_values),
            "seed_high": max(row.seed_values),
            "clear_of_references": row.clear,
            "seed": "all" if several else str(row.seeds[0]),
        }
    ]
    for seed, value, (low, high) in zip(row.seeds, row.seed_values, row.seed_intervals, strict=True):
        if several:
            lines.append({**shared, "row": "seed", "value": value, "low": low, "high": high, "seed": str(seed)})
    return lines


def csv_text(sections: Iterable[Section]) -> str:
    """The content of `leaderboard.csv`."""
    buffer = io.StringIO()
    frame(sections).to_csv(buffer, index=False, float_format="%.6f", lineterminator="\n")
    return buffer.getvalue()


def write_csv(sections: Iterable[Section], path: Path) -> None:
    """Write `leaderboard.csv`."""
    write_atomic(path, csv_text(sections).encode())


def _seeds(row: Row) -> str:
    if not row.trained_here:
        return "one file" if row.outputs else "one checkpoint"
    if len(row.seeds) == 1:
        return "one seed"
    lowest, highest = (in_unit(value, row.unit) for value in (min(row.seed_values), max(row.seed_values)))
    return f"{len(row.seeds)} seeds, {lowest} to {highest}"


def _interval(row: Row) -> str:
    return f"[{in_unit(row.low, row.unit)}, {in_unit(row.high, row.unit)}]"


def _named(row: Row) -> str:
    return row.model if row.trained_path else f"{row.model} (untrained path)"


def _lines(section: Section) -> list[tuple[str, str, str, str, str, bool]]:
    """Rank, name, value, interval, seeds, whether it is a reference row: floors and ceilings after the models."""
    models = [
        (str(row.rank), _named(row), in_unit(row.value, row.unit), _interval(row), _seeds(row), False)
        for row in section.rows
    ]
    references = overview.condensed(section)
    return models + [("", reference.label, str(reference), "", "", True) for reference in references]


def render(sections: Sequence[Section]) -> RenderableType:
    """The tables for the terminal."""
    if not sections:
        return Text("There are no records yet: run sparc-bench eval MODEL --suite scenes.")
    parts: list[RenderableType] = []
    for section in sections:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("rank", justify="right")
        table.add_column("model", overflow="fold")
        table.add_column(SIGNS[section.unit] or "value", justify="right")
        table.add_column("95 % interval", justify="right")
        table.add_column("seeds")
        for *cells, reference in _lines(section):
            table.add_row(*(visible(str(each)) for each in cells), style="dim" if reference else None)
        remarks = (Text(visible(sentence)) for sentence in section.remarks())
        parts += [Text(visible(section.heading), style="bold"), table, *remarks, Text("")]
    return Group(*parts)


def markdown_text(sections: Sequence[Section]) -> str:
    """The content of the page: the overview, the picture, and a ranked table for each task."""
    lines = ["# Results", "", _HOW_TO_READ, "", _WRITTEN_BY, ""]
    if not sections:
        lines += ["There are no records yet.", ""]
    else:
        lines += ["## Overview", "", overview.text(sections), ""]
        lines += ["![Headline values with intervals and reference rows, one panel a task](leaderboard.png)", ""]
    for sample, title in ((False, "Whole benchmarks"), (True, "Samples of benchmarks")):
        chosen = [section for section in sections if section.sample is sample]
        if not chosen:
            continue
        lines += [f"## {title}", ""]
        if sample:
            lines += ["Parts of published benchmarks: not comparable with published numbers.", ""]
        for section in chosen:
            lines += _markdown_section(section)
    return "\n".join(lines)


def _markdown_section(section: Section) -> list[str]:
    hashes = f"protocol {code_span(section.protocol_hash[:12])}, data {code_span(section.data_hash[:12])}"
    lines = [f"### {markdown(section.heading)}", "", f"Task {code_span(section.task)}, {hashes}.", ""]
    lines += [f"| rank | model | {SIGNS[section.unit] or 'value'} | 95 % interval | seeds |", "|--:|---|--:|--:|---|"]
    for rank, label, value, interval, seeds, reference in _lines(section):
        name = markdown(label)
        lines.append(
            f"|  | *{name}* | *{value}* | | |" if reference else f"| {rank} | {name} | {value} | {interval} | {seeds} |"
        )
    remarks = section.remarks()
    return [*lines, "", *(f"- {markdown(sentence)}" for sentence in remarks), *([""] if remarks else [])]


def write_markdown(sections: Sequence[Section], path: Path) -> None:
    """Write the page.

    Raises:
        UserError: a page that somebody else wrote lies there.
    """
    if path.is_file() and _WRITTEN_BY not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{path} was not written by sparc-bench leaderboard: move it to another folder.")
    write_atomic(path, markdown_text(sections).encode())


def plot(sections: Sequence[Section], path: Path) -> None:
    """A picture: a panel for each section, with intervals (grey: not clear of reference rows) and reference rows."""
    if not sections:
        raise UserError("There are no records to draw: run sparc-bench eval MODEL --suite scenes.")
    blocks = [
        interval_plot.Block(
            title=group.heading,
            panels=list(zip(group.columns(), group.sections, strict=True)),
            models=group.models,
        )
        for group in overview.groups(sections)
    ]
    interval_plot.save(blocks, path)


def publish(results: Path, console: Console) -> list[Section]:
    """Print the leaderboard and write it beside the records: README.md, leaderboard.csv and leaderboard.png.

    Raises:
        UserError: no such folder, a damaged record, or a README.md of somebody else's.
    """
    if not results.is_dir():
        raise UserError(f"The folder {results} does not exist: run sparc-bench eval first, or check the path.")
    sections = build(results)
    write_markdown(sections, results / PAGE)
    console.print(render(sections))
    write_csv(sections, results / "leaderboard.csv")
    if sections:
        plot(sections, results / "leaderboard.png")
    return sections
