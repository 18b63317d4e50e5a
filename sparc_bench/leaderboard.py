"""The leaderboard for people: on the screen, as CSV, Markdown and a picture, and the short table in the README.

Everything but the picture is the same, byte for byte, for the same records.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.atomic import write_atomic
from sparc_bench.errors import UserError
from sparc_bench.sections import CEILINGS, Row, Section, build, percent, reference_values

__all__ = [
    "build",
    "frame",
    "plot",
    "publish",
    "readme_text",
    "reference_values",
    "render",
    "write_csv",
    "write_markdown",
]

README_START, README_END = "<!-- results -->", "<!-- /results -->"

_COLUMNS = [
    *("task", "metric", "headline", "sample", "n", "exposure", "protocol_hash", "data_hash", "row", "name", "rank"),
    *("value", "low", "high", "seeds", "seed_low", "seed_high", "clear_of_references", "trained_path"),
]

_HOW_TO_READ = (
    "Numbers are percentages with 95 % intervals over images. Rows stand in one table only where protocol, data and "
    "exposure are the same. A rank is 1 plus the number of rows whose whole interval lies above; rows of one rank are "
    "not told apart. In italics: reference rows, which a result has to be clear of (constant, chance, random, "
    "untrained) or cannot be expected to pass (ceiling, oracle, human)."
)


def frame(sections: Iterable[Section]) -> pd.DataFrame:
    """All rows as one table: values are fractions; reference rows have no interval and no rank."""
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
        lines += [
            {
                **shared,
                "row": "model",
                "name": row.model,
                "rank": row.rank,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "seeds": len(row.seeds),
                "seed_low": min(row.seed_values),
                "seed_high": max(row.seed_values),
                "clear_of_references": row.clear,
                "trained_path": row.trained_path,
            }
            for row in section.rows
        ]
        lines += [{**shared, "row": "reference", "name": name, "value": value} for name, value in section.references]
    return pd.DataFrame(lines, columns=_COLUMNS).astype({"rank": "Int64", "seeds": "Int64"})


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
        return "one checkpoint"
    if len(row.seeds) == 1:
        return "one seed"
    return f"{len(row.seeds)} seeds, {percent(min(row.seed_values))} to {percent(max(row.seed_values))}"


def _interval(row: Row) -> str:
    return f"[{percent(row.low)}, {percent(row.high)}]"


def _named(row: Row) -> str:
    return row.model if row.trained_path else f"{row.model} (untrained path)"


def _lines(section: Section) -> list[tuple[str, str, str, str, str, bool]]:
    """Rank, name, percent, interval, seeds, whether it is a reference row: floors and ceilings after the models."""
    models = [
        (str(row.rank), _named(row), percent(row.value), _interval(row), _seeds(row), False) for row in section.rows
    ]
    return models + [("", name, percent(value), "", "", True) for name, value in section.references]


def render(sections: Sequence[Section]) -> RenderableType:
    """The tables for the terminal."""
    if not sections:
        return Text("There are no records yet: run sparc-bench eval MODEL --suite scenes.")
    parts: list[RenderableType] = []
    for section in sections:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("rank", justify="right")
        table.add_column("model", overflow="fold")
        table.add_column("%", justify="right")
        table.add_column("95 % interval", justify="right")
        table.add_column("seeds")
        for *cells, reference in _lines(section):
            table.add_row(*map(str, cells), style="dim" if reference else None)
        parts += [Text(section.heading, style="bold"), table, *map(Text, section.remarks()), Text("")]
    return Group(*parts)


def markdown_text(sections: Sequence[Section]) -> str:
    """The content of `leaderboard.md`."""
    lines = ["# Leaderboard", "", _HOW_TO_READ, "", "Written by `sparc-bench leaderboard`; not edited by hand.", ""]
    if not sections:
        lines += ["There are no records yet.", ""]
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
    lines = [f"### {section.heading}", ""]
    lines += [f"Task `{section.task}`, protocol `{section.protocol_hash[:12]}`, data `{section.data_hash[:12]}`.", ""]
    lines += ["| rank | model | % | 95 % interval | seeds |", "|--:|---|--:|--:|---|"]
    for rank, name, value, interval, seeds, reference in _lines(section):
        lines.append(
            f"|  | *{name}* | *{value}* | | |" if reference else f"| {rank} | {name} | {value} | {interval} | {seeds} |"
        )
    remarks = section.remarks()
    return [*lines, "", *(f"- {sentence}" for sentence in remarks), *([""] if remarks else [])]


def write_markdown(sections: Sequence[Section], path: Path) -> None:
    """Write `leaderboard.md`."""
    write_atomic(path, markdown_text(sections).encode())


def results_table(sections: Sequence[Section]) -> str:
    """The short table of the README: one line per section, one column per model, the highest floor beside them."""
    if not sections:
        return "There are no records yet."
    models = sorted({row.model for section in sections for row in section.rows})
    lines = [
        f"| task | metric | {' | '.join(models)} | has to be clear of |",
        f"|---|---|{'---|' * len(models)}---|",
    ]
    for section in sections:
        cells = {row.model: _cell(row) for row in section.rows}
        sample = f" `@sample` n={section.n}" if section.sample else ""
        floors = [(name, value) for name, value in section.references if name.partition(" ")[0] not in CEILINGS]
        floor = f"{floors[0][0]} {percent(floors[0][1])}" if floors else ""
        values = " | ".join(cells.get(model, "") for model in models)
        lines.append(f"| {section.title}{sample} | {section.metric} | {values} | {floor} |")
    foot = "Percent with 95 % intervals over images."
    if any(not row.clear for section in sections for row in section.rows):
        foot += " ° not clear of its reference rows."
    if any(not row.trained_path for section in sections for row in section.rows):
        foot += " † untrained path: no loss trained these patch vectors."
    if any(row.trained_here and len(row.seeds) == 1 for section in sections for row in section.rows):
        foot += " One seed each where no other number is given: the spread between trainings is not in the intervals."
    return "\n".join([*lines, "", foot])


def _cell(row: Row) -> str:
    marks = ("" if row.clear else "°") + ("" if row.trained_path else "†")
    seeds = f", {len(row.seeds)} seeds" if len(row.seeds) > 1 else ""
    return f"{percent(row.value)}{marks} {_interval(row)}{seeds}"


def readme_text(readme: str, sections: Sequence[Section]) -> str:
    """The README with its results table brought up to date.

    Raises:
        UserError: the two markers are not there, in order.
    """
    before, start, rest = readme.partition(README_START)
    _, end, after = rest.partition(README_END)
    if not (start and end):
        raise UserError(f"The README has no place for the results: add the lines {README_START} and {README_END}.")
    return f"{before}{start}\n{results_table(sections)}\n{end}{after}"


def plot(sections: Sequence[Section], path: Path) -> None:
    """A picture: a panel per section, intervals of the models (grey: not clear of reference rows), reference rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not sections:
        raise UserError("There are no records to draw: run sparc-bench eval MODEL --suite scenes.")
    most = max(len(section.rows) for section in sections)
    lines = (len(sections) + 1) // 2
    figure = Figure(figsize=(14, 1.0 + lines * (0.9 + 0.3 * most)), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False).ravel()
    names = sorted({name.partition(" ")[0] for section in sections for name, _ in section.references})
    # ceilings and floors differ in line style, so that the picture can be read without colours
    styles = {name: {"color": f"C{1 + i % 9}", "ls": "--" if name in CEILINGS else ":"} for i, name in enumerate(names)}
    for panel, section in zip(panels, sections, strict=False):
        for name, value in section.references:
            panel.axvline(100 * value, linewidth=1.5, **styles[name.partition(" ")[0]])
        for place, row in enumerate(section.rows):
            colour = "C0" if row.clear else "gray"
            panel.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=3)
            panel.plot([100 * row.value], [place], "o", color=colour)
        panel.set_yticks(range(len(section.rows)), [_named(row) for row in section.rows])
        panel.set_ylim(most - 0.4, -0.6)
        panel.set_xlim(0, 100)
        sample = "@sample " if section.sample else ""
        panel.set_title(f"{section.task}: {section.metric}, % ({sample}n={section.n})", loc="left", fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels[len(sections) :]:
        panel.set_axis_off()
    handles = [Line2D([], [], label=name, color=style["color"], ls=style["ls"]) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(handles)), fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomic(path, buffer.getvalue())


def publish(results: Path, console: Console) -> list[Section]:
    """Print the leaderboard and write it beside the records as CSV, Markdown and PNG.

    A README.md beside the results folder that has the two markers gets its table as well.

    Raises:
        UserError: no such folder, or a damaged record.
    """
    if not results.is_dir():
        raise UserError(f"The folder {results} does not exist: run sparc-bench eval first, or check the path.")
    sections = build(results)
    console.print(render(sections))
    write_csv(sections, results / "leaderboard.csv")
    write_markdown(sections, results / "leaderboard.md")
    if sections:
        plot(sections, results / "leaderboard.png")
    readme = results.resolve().parent / "README.md"
    if readme.is_file() and README_START in (text := readme.read_text(encoding="utf-8")):
        write_atomic(readme, readme_text(text, sections).encode())
    return sections
