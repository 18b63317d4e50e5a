"""The table of a study: CSV, Markdown and a picture beside its trials, and the short form on the screen.

Methods are ranked apart by what they see in a step. Where intervals overlap no winner is named.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards.study_card import StudyCard
from sparc_bench.files.atomic import write_atomic
from sparc_bench.report import interval_plot, overview
from sparc_bench.report.ranking import Row, ranked
from sparc_bench.study.entries import KINDS, Entry, Outcome, collect
from sparc_bench.study.rows import folder_of

CSV, MARKDOWN, PICTURE = "table.csv", "table.md", "table.png"
NOT_CLEAR_OF_ZERO = "‡"


@dataclass(frozen=True)
class Block:
    """Recipes that are ranked together: those with a value first, best first.

    Attributes:
        kind: what they see.
        entries: of these recipes.
        rows: recipe -> its row of the first task's headline, ranked within the block.
    """

    kind: str
    entries: tuple[Entry, ...]
    rows: dict[str, Row]

    @property
    def recipes(self) -> list[str]:
        """Names, in order."""
        return [entry.recipe for entry in self.entries]

    def verdict(self) -> str:
        """Who is ahead, if anybody."""
        if len(self.rows) < 2:
            return ""
        first, *others = self.rows.values()
        near = [other.model for other in others if first.low <= other.high]
        if near:
            return f"{self._named}: no winner, the intervals of {', '.join([first.model, *near])} overlap."
        but = "" if first.clear else ", yet not clear of its reference rows"
        return f"{self._named}: {first.model} is ahead, its interval lies above those of the others{but}."

    @property
    def _named(self) -> str:
        return self.kind[0].upper() + self.kind[1:]


def publish(study: StudyCard, results: Path, console: Console) -> None:
    """Write `table.csv`, `table.md` and `table.png` beside the study's trials and print the short form.

    Raises:
        UserError: a card, table or record that is wrong.
    """
    outcome = collect(study, results)
    folder = folder_of(study.name, results)
    for name, text in texts(outcome).items():
        write_atomic(folder / name, text.encode())
    if outcome.sections:
        plot(outcome, folder / PICTURE)
    console.print(render(outcome))
    console.print(f"The table of the study is in {folder}: {MARKDOWN}, {CSV}{f', {PICTURE}' * bool(outcome.sections)}.")


def stale(study: StudyCard, results: Path) -> list[str]:
    """Files of a study's table that are not what its trials, runs and records give; none where it was never made.

    Raises:
        UserError: a card, table or record that is wrong.
    """
    folder = folder_of(study.name, results)
    if not folder.is_dir():
        return []
    return [
        f"{folder / name} is not what the records give: run sparc-bench study {study.name}."
        for name, text in texts(collect(study, results)).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def texts(outcome: Outcome) -> dict[str, str]:
    """File name -> content of the tables."""
    return {CSV: csv_text(outcome), MARKDOWN: markdown_text(outcome)}


def blocks(outcome: Outcome) -> list[Block]:
    """The groups that are ranked apart."""
    by_name = {row.model: row for row in outcome.main.rows} if outcome.main else {}
    found = []
    for kind in KINDS:
        entries = {entry.recipe: entry for entry in outcome.entries if entry.kind == kind}
        rows = {row.model: row for row in ranked([by_name[name] for name in entries if name in by_name])}
        order = [*rows, *(name for name in entries if name not in rows)]
        if order:
            found.append(Block(kind, tuple(entries[name] for name in order), rows))
    return found


_COLUMNS = ("rank", "recipe", "images", "captions", "negatives", "trials", "chosen", "seeds")


def _headline(outcome: Outcome) -> list[str]:
    if outcome.main is None:
        return []
    (name,) = overview.Group("", (outcome.main,), (outcome.main,)).columns()
    return [f"{name}, %", f"minus {outcome.study.names[0]}"]


def _count(number: int, wanted: int, diverged: int) -> str:
    return f"{number}" + f" of {wanted}" * (number < wanted) + f", {diverged} diverged" * bool(diverged)


def _cells(outcome: Outcome, block: Block, entry: Entry) -> list[str]:
    row = block.rows.get(entry.recipe)
    cells = [
        str(row.rank) if row else "",
        entry.recipe,
        *(str(number) for number in (entry.sees.images, entry.sees.captions, entry.sees.negatives)),
        _count(len(entry.trials), outcome.study.trials, len(entry.failed)),
        ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in (entry.chosen or {}).items()),
        _count(len(entry.evaluated), entry.wanted, len(entry.stopped)),
    ]
    return [*cells, *([overview.cell(row) if row else _absent(entry), _difference(entry)] if outcome.main else [])]


def _absent(entry: Entry) -> str:
    return "diverged" if entry.state == "diverged" else "missing"


def _difference(entry: Entry) -> str:
    found = entry.difference
    if found is None:
        return ""
    mark = NOT_CLEAR_OF_ZERO if found.low <= 0 <= found.high else ""
    return f"{100 * found.value:+.1f}{mark} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _remarks(outcome: Outcome) -> list[str]:
    found = [verdict for block in blocks(outcome) if (verdict := block.verdict())]
    one = [e.recipe for e in outcome.entries if e.difference and e.difference.one_seed]
    if any(e.difference and e.difference.low <= 0 <= e.difference.high for e in outcome.entries):
        found.append(f"{NOT_CLEAR_OF_ZERO} the difference is not clear of zero.")
    if one:
        found.append(f"Differences with one seed on a side lack the spread between its trainings: {', '.join(one)}.")
    some = [entry.recipe for entry in outcome.entries if entry.stopped and entry.evaluated]
    if some:
        found.append(f"Means over the seeds that did not diverge, and so better than the method is: {', '.join(some)}.")
    return found


def _lists(outcome: Outcome) -> list[tuple[str, list[str]]]:
    """Headed lists of what diverged, what is missing and what was left out."""
    lists = [
        ("Diverged", [sentence for entry in outcome.entries for sentence in entry.diverged()]),
        ("Missing", [sentence for entry in outcome.entries for sentence in entry.missing]),
        ("Left out", list(outcome.left_out)),
    ]
    return [(title, sentences) for title, sentences in lists if sentences]


def markdown_text(outcome: Outcome) -> str:
    """The content of `table.md`."""
    study = outcome.study
    columns = [*_COLUMNS, *_headline(outcome)]
    lines = [f"# {study.title}", "", "Written by `sparc-bench study`; not edited by hand.", ""]
    lines += [
        f"Settings were chosen among {study.trials} trials of {study.trial_steps} steps for each recipe by the mean of "
        f"{' and '.join(study.criterion)} on val. Images, captions and negatives are those of a step; methods that see "
        "other kinds of captions are ranked apart. Differences are of the same images. Intervals are not corrected for "
        "the number of rows.",
        "",
    ]
    lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for block in blocks(outcome):
        lines.append(f"| | **{block.kind}** |{' |' * (len(columns) - 2)}")
        lines += [f"| {' | '.join(_cells(outcome, block, entry))} |" for entry in block.entries]
    remarks = _remarks(outcome)
    lines += ["", *(f"- {sentence}" for sentence in remarks), *[""] * bool(remarks)]
    for title, sentences in _lists(outcome):
        lines += [f"## {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    if outcome.sections:
        lines += ["## All tasks", ""]
        names = [(block.kind, block.recipes) for block in blocks(outcome)]
        absent = {entry.recipe: _absent(entry) for entry in outcome.entries if not entry.evaluated}
        for group in overview.groups(outcome.sections):
            lines += [f"**{group.title}**", "", *overview.table(group, names, absent), ""]
        lines += [overview.foot(outcome.sections), "", f"![Values with intervals]({PICTURE})", ""]
    return "\n".join(lines)


def csv_text(outcome: Outcome) -> str:
    """The content of `table.csv`: a line for each recipe; values are fractions."""
    lines: list[dict[str, object]] = []
    for block in blocks(outcome):
        for entry in block.entries:
            row = block.rows.get(entry.recipe)
            line: dict[str, object] = {
                "ranked_among": block.kind,
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
            if outcome.main:
                found = entry.difference
                line |= {
                    f"minus {outcome.study.names[0]}": found.value if found else None,
                    "difference_low": found.low if found else None,
                    "difference_high": found.high if found else None,
                    "clear_of_zero": not found.low <= 0 <= found.high if found else None,
                }
            for section in outcome.sections:
                line |= _values(f"{section.task} {section.metric}", section.rows, entry.recipe)
            lines.append(line)
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


def render(outcome: Outcome) -> RenderableType:
    """The ranking on the screen, and the lists of what diverged and what is missing."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in (*_COLUMNS, *_headline(outcome)):
        table.add_column(column, overflow="fold", justify="left" if column in ("recipe", "chosen") else "right")
    for block in blocks(outcome):
        table.add_row("", Text(block.kind, style="bold"))
        for entry in block.entries:
            table.add_row(*map(Text, _cells(outcome, block, entry)))
    parts: list[RenderableType] = [Text(outcome.study.title, style="bold"), table, *map(Text, _remarks(outcome))]
    for title, sentences in _lists(outcome):
        parts += [Text(f"{title}:"), *(Text(f"  {sentence}") for sentence in sentences)]
    return Group(*parts)


def plot(outcome: Outcome, path: Path) -> None:
    """The picture: a panel for each headline metric; recipes in the order of the table, under what they see."""
    found = blocks(outcome)
    names = [name for block in found for name in (block.kind, *block.recipes)]
    pictures = [
        interval_plot.Block(
            title=f"{group.title.replace('`', '')}, %",
            panels=list(zip(group.columns(), group.sections, strict=True)),
            models=names,
            notes={entry.recipe: _absent(entry) for entry in outcome.entries if not entry.evaluated},
            headings=frozenset(block.kind for block in found),
        )
        for group in overview.groups(outcome.sections)
    ]
    interval_plot.save(pictures, path)
