"""The short tables: a row for each model, a column for each headline metric, one table for each group of tasks.

A group is what one data set's whole test splits hold, or the samples of one family of tasks; metrics of patch vectors
have a table for each path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sparc_bench.foreign_text import code_span, markdown
from sparc_bench.metrics.unit import Unit, in_unit
from sparc_bench.report.ranking import CEILINGS, EXPOSURES, OUTPUTS_TITLE, ReferenceRow, Row, Section

NOT_CLEAR, UNTRAINED, SEEN = "°", "†", "‡"

FEW = 2
"""Up to so many reference rows of one kind are printed each by itself."""


@dataclass(frozen=True)
class Group:
    """Sections that stand in one table.

    Attributes:
        title: what they have in common.
        tasks: all sections of the group's tasks, by whichever path; column names leave out what these share.
        sections: the columns.
    """

    title: str
    tasks: tuple[Section, ...]
    sections: tuple[Section, ...]

    @property
    def models(self) -> list[str]:
        """Models with a row in any of the sections, by name."""
        return sorted({row.model for section in self.sections for row in section.rows})

    @property
    def heading(self) -> str:
        """Title without the marks of Markdown, with `%` where all values are in percent."""
        sign = ", %" if all(section.unit == "percent" for section in self.sections) else ""
        return self.title.replace("`", "") + sign

    def columns(self) -> list[str]:
        """A short name for each section: its task without what all tasks of the group start with, and its metric."""
        shared = len(_shared(self.tasks))
        names = []
        for section in self.sections:
            size = f", n={section.n}" if section.sample else ""
            size += "" if section.unit == "percent" else ", plain number"
            names.append(f"{' '.join(section.task.split('_')[shared:])}: {section.metric.metric}{size}")
        return [
            name
            if names.count(name) == 1
            else f"{name}, protocol {s.protocol_hash[:6]}, data {s.data_hash[:6]}, {EXPOSURES[s.exposure]}"
            for name, s in zip(names, self.sections, strict=True)
        ]


def groups(sections: Iterable[Section]) -> list[Group]:
    """The tables, whole benchmarks before samples, in a fixed order."""
    by_data: dict[tuple[bool, str, bool], dict[str, list[Section]]] = {}
    for section in sections:
        data = (section.sample, section.family if section.sample else section.dataset, section.outputs)
        by_data.setdefault(data, {}).setdefault(section.metric.path, []).append(section)
    found = []
    for (sample, name, outputs), by_path in sorted(by_data.items()):
        tasks = tuple(section for of in by_path.values() for section in of)
        what = ", ".join(filter(None, (name, " ".join(_shared(tasks)))))
        title = f"Samples (`@sample`): {markdown(what)}" if sample else code_span(name)
        for path in sorted(by_path, key=lambda path: (path != "", by_path[path][0].main is False, path)):
            whose = f", patches by the path {code_span(path)}" if path else ""
            whose += f", {OUTPUTS_TITLE}" if outputs else ""
            found.append(Group(f"{title}{whose}", tasks, tuple(by_path[path])))
    return found


def _shared(tasks: Sequence[Section]) -> list[str]:
    """The words that the names of all tasks begin with; none where there is one task alone."""
    names = [task.split("_") for task in {section.task for section in tasks}]
    if len(names) < 2:
        return []
    return [words[0] for words in takewhile(lambda words: len({*words}) == 1, zip(*names, strict=False))]


def text(sections: Sequence[Section]) -> str:
    """All short tables and the meaning of their marks."""
    if not sections:
        return "There are no records yet."
    lines: list[str] = []
    for group in groups(sections):
        lines += [f"**{group.title}**", "", *table(group, [("", group.models)]), ""]
    return "\n".join([*lines, foot(sections)])


def table(
    group: Group, blocks: Sequence[tuple[str, Sequence[str]]], absent: Mapping[str, str] | None = None
) -> list[str]:
    """One table in Markdown.

    Args:
        group: its columns.
        blocks: heading (empty: none) and models of each block of rows, in order.
        absent: model -> what stands where it has no row.
    """
    columns = [markdown(column) for column in group.columns()]
    lines = [f"| model | seeds | {' | '.join(columns)} |", f"|---|--:|{'---|' * len(columns)}"]
    by_section = [{row.model: row for row in section.rows} for section in group.sections]
    for heading, models in blocks:
        if heading:
            lines.append(f"| **{heading}** | |{' |' * len(columns)}")
        for model in models:
            rows = [of.get(model) for of in by_section]
            most = max((len(row.seeds) for row in rows if row), default=0)
            cells = [cell(row, most) if row else (absent or {}).get(model, "") for row in rows]
            lines.append(f"| {markdown(model)} | {seeds(rows)} | {' | '.join(cells)} |")
    return [*lines, f"| *highest reference row* | | {' | '.join(map(_floor, group.sections))} |"]


def seeds(rows: Iterable[Row | None]) -> str:
    """The number of seeds of a model's rows; none for a checkpoint of others."""
    found = [row for row in rows if row]
    if not found:
        return ""
    if found[0].outputs:
        return "file"
    return str(max(len(row.seeds) for row in found)) if found[0].trained_here else "checkpoint"


def cell(row: Row, most: int = 0) -> str:
    """Value with marks and interval; the number of seeds where it is not that of the whole line."""
    number = f", {len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}" if len(row.seeds) < most else ""
    value, low, high = (in_unit(each, row.unit) for each in (row.value, row.low, row.high))
    return f"{value}{marks(row)} [{low}, {high}]{number}"


def marks(row: Row) -> str:
    """° not clear of its reference rows, † untrained path, ‡ images seen in training."""
    seen = SEEN if row.exposure.kind == "seen" else ""
    return ("" if row.clear else NOT_CLEAR) + ("" if row.trained_path else UNTRAINED) + seen


def _floor(section: Section) -> str:
    floor = next((row for row in section.reference_rows if row.kind not in CEILINGS), None)
    return f"*{markdown(floor.kind)} {in_unit(floor.value, section.unit)}*" if floor else ""


def foot(sections: Sequence[Section]) -> str:
    """Footnote: the population of the intervals, and the meaning of the marks in the tables."""
    rows = [row for section in sections for row in section.rows]
    several = any(len(row.seeds) > 1 for row in rows)
    sentences = ["Percent with 95 % intervals over images."]
    if several:
        sentences = ["Percent: means over training seeds, with 95 % intervals over seeds and images."]
    if any(section.unit != "percent" for section in sections):
        sentences.append("Columns of plain numbers say so.")
    if any(not row.clear for row in rows):
        sentences.append(f"{NOT_CLEAR} not clear of its own reference rows.")
    if any(not row.trained_path for row in rows):
        sentences.append(f"{UNTRAINED} untrained path: no loss trained these patch vectors.")
    seen = dict.fromkeys(row.model for row in rows if row.exposure.kind == "seen")
    if seen:
        models = markdown(", ".join(seen))
        sentences.append(f"{SEEN} not zero-shot: images of the task were seen in training ({models}).")
    if any(row.one_seed for row in rows):
        sentences.append(
            "Where there is one seed, the interval is over images alone, without the spread between trainings."
            if several
            else "One seed each: the spread between trainings is not in the intervals."
        )
    return " ".join(sentences)


@dataclass(frozen=True)
class ReferenceRange:
    """Reference rows as they are printed: one, or the lowest and highest of several models' rows of a kind."""

    label: str
    kind: str
    low: float
    high: float
    unit: Unit = "percent"

    def __str__(self) -> str:
        low, high = in_unit(self.low, self.unit), in_unit(self.high, self.unit)
        return low if self.low == self.high else f"{low} to {high}"


def condensed(section: Section) -> list[ReferenceRange]:
    """Reference rows of a section, highest first, with those that differ by model put together where there are many."""
    by_kind: dict[str, list[ReferenceRow]] = {}
    for row in section.reference_rows:
        by_kind.setdefault(row.kind, []).append(row)
    found = []
    for kind, rows in by_kind.items():
        if len(rows) > FEW:
            values = [row.value for row in rows]
            label = f"{kind} ({len(rows)} models)"
            found.append(ReferenceRange(label, kind, min(values), max(values), section.unit))
        else:
            found += [ReferenceRange(row.label, kind, row.value, row.value, section.unit) for row in rows]
    return sorted(found, key=lambda reference: (-reference.high, reference.label))
