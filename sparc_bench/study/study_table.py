"""The tables of a study: CSV, Markdown and picture in the study's folder, and short tables on the terminal.

Every set of final runs has its own: `table.md` is the first choice's, `table_second.md` the second choice's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards.study_card import StudyCard
from sparc_bench.files.atomic import write_atomic
from sparc_bench.foreign_text import csv_cell, visible
from sparc_bench.metrics.seeds import SeedsEstimate
from sparc_bench.report import interval_plot
from sparc_bench.report.ranking import Row
from sparc_bench.study.run_sets import sets_of
from sparc_bench.study.study_page import MARKDOWN, PICTURE, markdown_text, tables_of
from sparc_bench.study.study_ranking import (
    absent,
    cells,
    clear_differences,
    clear_of_zero,
    columns,
    lists,
    ranked_groups,
    remarks,
)
from sparc_bench.study.study_result import StudyResult, collect
from sparc_bench.study.study_rows import folder_of

CSV = "table.csv"


def publish(study: StudyCard, results: Path, console: Console) -> None:
    """Write the tables and pictures into the study's folder and print the short tables.

    Raises:
        UserError: an invalid card, table or record.
    """
    folder = folder_of(study.name, results)
    written: list[str] = []
    for of in sets_of(study):
        result = collect(study, results, of)
        for name, text in texts(result).items():
            write_atomic(folder / name, text.encode())
        written += [of.file(MARKDOWN), of.file(CSV)]
        if result.sections:
            plot(result, folder / of.file(PICTURE))
            written.append(of.file(PICTURE))
        console.print(render(result))
    console.print(f"The table of the study is in {folder}: {', '.join(written)}.")


def stale(study: StudyCard, results: Path) -> list[str]:
    """One sentence for each table file that differs from the present trials, runs and records; empty without a folder.

    Raises:
        UserError: an invalid card, table or record.
    """
    folder = folder_of(study.name, results)
    if not folder.is_dir():
        return []
    return [
        f"{folder / name} is not what the records give: run sparc-bench study {study.name}."
        for of in sets_of(study)
        for name, text in texts(collect(study, results, of)).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def texts(result: StudyResult) -> dict[str, str]:
    """File name -> content of the CSV and Markdown tables."""
    return {result.of.file(CSV): csv_text(result), result.of.file(MARKDOWN): markdown_text(result)}


def csv_text(result: StudyResult) -> str:
    """The content of `table.csv`: one line for each recipe; values are fractions."""
    lines: list[dict[str, object]] = []
    clear, timed = clear_of_zero(result), result.study.cpu_seconds is not None
    for group in ranked_groups(result):
        for entry in group.entries:
            row = group.rows.get(entry.recipe)
            line: dict[str, object] = {
                "ranked_among": group.kind,
                "rank": row.rank if row else None,
                "recipe": entry.recipe,
                **entry.sees.model_dump(),
                "trials": len(entry.trials),
                "trials_diverged": len(entry.failed),
                "chosen": json.dumps(entry.chosen) if entry.chosen is not None else "",
                "state": entry.state,
                "seeds": len(entry.evaluated),
                "seeds_wanted": entry.wanted,
                "seeds_diverged": len(entry.stopped),
            }
            if timed:
                line |= {"steps": entry.steps, "cpu_seconds": entry.cpu_seconds}
            if result.main:
                found = entry.difference
                line |= {
                    f"minus {result.study.compared_with}": found.value if found else None,
                    "difference_low": found.low if found else None,
                    "difference_high": found.high if found else None,
                    "difference_p": found.p if found else None,
                    "clear_of_zero": clear.get(entry.recipe) if found else None,
                }
            for number, section in enumerate(result.sections):
                name = f"{section.task} {section.metric}"
                line |= _values(name, section.rows, entry.recipe)
                if result.differences:
                    line |= _minus(name, result.study.compared_with, result.differences[number], entry.recipe)
            lines.append({csv_cell(key): csv_cell(value) for key, value in line.items()})
    frame = pd.DataFrame(lines)
    if lines:
        frame["rank"] = frame["rank"].astype("Int64")
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, float_format="%.6f", lineterminator="\n")
    return buffer.getvalue()


def _values(name: str, rows: Sequence[Row], recipe: str) -> dict[str, object]:
    row = next((row for row in rows if row.model == recipe), None)
    return {
        name: row.value if row else None,
        f"{name} low": row.low if row else None,
        f"{name} high": row.high if row else None,
        f"{name} clear": row.clear if row else None,
    }


def _minus(name: str, base: str, found: Mapping[str, SeedsEstimate], recipe: str) -> dict[str, object]:
    mine = found.get(recipe)
    return {
        f"{name} minus {base}": mine.value if mine else None,
        f"{name} minus {base} low": mine.low if mine else None,
        f"{name} minus {base} high": mine.high if mine else None,
        f"{name} minus {base} p": mine.p if mine else None,
        f"{name} minus {base} clear": clear_differences(found)[recipe] if mine else None,
    }


def render(result: StudyResult) -> RenderableType:
    """The short table for the terminal: ranking, and lists of diverged and missing trials and runs."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns(result):
        table.add_column(column, overflow="fold", justify="left" if column in ("recipe", "chosen") else "right")
    for group in ranked_groups(result):
        table.add_row("", Text(group.kind, style="bold"))
        for entry in group.entries:
            table.add_row(*map(Text, cells(result, group, entry)))
    title = result.study.title + result.of.after
    parts: list[RenderableType] = [Text(visible(title), style="bold"), table, *map(Text, remarks(result))]
    for title, sentences in lists(result):
        parts += [Text(f"{title}:"), *(Text(f"  {visible(sentence)}") for sentence in sentences)]
    return Group(*parts)


def plot(result: StudyResult, path: Path) -> None:
    """Draw the picture: one panel for each headline metric, recipes in the order of the table, under their kind."""
    found = ranked_groups(result)
    names = [name for group in found for name in (group.kind, *group.recipes)]
    pictures = [
        interval_plot.Block(
            title=part.heading,
            panels=list(zip(part.columns(), part.sections, strict=True)),
            models=names,
            notes={entry.recipe: absent(entry) for entry in result.entries if not entry.evaluated},
            headings=frozenset(group.kind for group in found),
        )
        for part in tables_of(result)
    ]
    interval_plot.save(pictures, path)
