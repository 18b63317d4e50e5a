"""Comparison of two models on the same tasks, image by image, from the outcomes beside their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards import discovery
from sparc_bench.errors import UserError, nearest
from sparc_bench.foreign_text import visible
from sparc_bench.metrics.estimate import PairedEstimate, paired_difference
from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.metrics.sign_flips import LEVEL, holm
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.metrics.unit import Unit, in_unit
from sparc_bench.records import outcome_file
from sparc_bench.records.outcome_file import StoredOutcome
from sparc_bench.records.record import SAMPLES, Record, read_record, record_files

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN_GROUPS = 16


@dataclass(frozen=True)
class Difference:
    """One metric of both models and their paired difference (first minus second).

    Attributes:
        name: of the metric or group.
        a: value of the first model.
        b: value of the second.
        estimate: of the difference.
        p: its p value, corrected for all rows of the table; NaN where there is nothing to compare.
        less_is_better: the metric is an error.
        unit: of the values.
    """

    name: str
    a: float
    b: float
    estimate: PairedEstimate
    p: float
    less_is_better: bool = False
    unit: Unit = "percent"

    @property
    def verdict(self) -> str:
        """The model ahead: `a` or `b` where the corrected p value is under .05, else `open`."""
        if not self.p < LEVEL:
            return "open"
        return "a" if (self.estimate.value > 0) != self.less_is_better else "b"


@dataclass(frozen=True)
class TaskComparison:
    """Both models on one task.

    Attributes:
        a: record of the first model.
        b: record of the second.
        metrics: of every metric that both have.
        groups: grouping -> differences of the headline by group.
        only_a: ids of examples that the first alone gets right; None where the task has no right and wrong.
        only_b: the reverse.
        notes: what could not be compared.
    """

    a: Record
    b: Record
    metrics: tuple[Difference, ...]
    groups: Mapping[str, tuple[Difference, ...]] = field(default_factory=dict)
    only_a: tuple[str, ...] | None = None
    only_b: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two models on all tasks that both have records of.

    Attributes:
        a: name of the first, as it was asked for.
        b: name of the second.
        tasks: in alphabetical order.
        unshared: tasks that only one of them has.
    """

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    unshared: tuple[str, ...] = ()

    def to_pandas(self, groups: bool = False) -> DataFrame:
        """One row for each metric of a task: values `a` and `b`, their difference with interval and p, who is ahead.

        Args:
            groups: rows for the headline by group too, with columns `grouping` and `group`.
        """
        from pandas import DataFrame

        ahead = {"a": self.a, "b": self.b, "open": None}
        rows = []
        for task in self.tasks:
            named = [({"task": task.a.task, "metric": row.name}, row) for row in task.metrics]
            for grouping, found in task.groups.items() if groups else ():
                of = {"task": task.a.task, "metric": task.a.headline, "grouping": grouping}
                named += [(of | {"group": row.name}, row) for row in found]
            for names, row in named:
                estimate = row.estimate
                interval = {"difference": estimate.value, "low": estimate.low, "high": estimate.high, "p": row.p}
                counts = {"images": estimate.clusters, "differ": estimate.differing}
                verdict = {"unit": row.unit, "ahead": ahead[row.verdict]}
                rows.append({**names, "a": row.a, "b": row.b, **interval, **counts, **verdict})
        return DataFrame(rows)


def compare(a: str | Path, b: str | Path, results: Path = Path("results")) -> Comparison:
    """Paired differences of two models on every task that both have records of.

    Args:
        a: a model's name as under `results/` (`NAME`, `NAME.seed1`), a folder of records, or one record.
        b: the other.
        results: folder of the records.

    Raises:
        UserError: a model without records, or see `compare_files`.
    """
    return compare_files(str(a), record_files_of(a, results), str(b), record_files_of(b, results))


def compare_files(a: str, files_a: Mapping[str, Path], b: str, files_b: Mapping[str, Path]) -> Comparison:
    """Paired differences of two models by name, given each one's task -> file of its record.

    Raises:
        UserError: no task in common, or records of different protocols, data or examples.
    """
    shared = sorted(files_a.keys() & files_b.keys())
    if not shared:
        raise UserError(
            f"{a} and {b} have no task in common ({', '.join(sorted(files_a))}; {', '.join(sorted(files_b))}): "
            "evaluate both on one suite."
        )
    tasks = tuple(_compared(files_a[task], files_b[task]) for task in shared)
    return Comparison(a, b, tasks, tuple(sorted(files_a.keys() ^ files_b.keys())))


def record_files_of(model: str | Path, results: Path) -> dict[str, Path]:
    """Task -> record file of a model."""
    path = Path(model)
    if path.is_file() and path.suffix == ".json":
        return {path.stem: path}
    named = [results / str(model), results / SAMPLES / str(model)]
    folders = [path] if path.is_dir() and any(path.glob("*.json")) else named
    found = {file.stem: file for folder in folders for file in sorted(folder.glob("*.json"))}
    if not found:
        known = {file.parent.name for file in record_files(results)}
        hint = nearest(str(model), known, f"ls {results}") if known else f"run sparc-bench eval {model} first."
        raise UserError(f"There are no records of '{model}' under {results}: {hint}")
    return found


def _compared(path_a: Path, path_b: Path) -> TaskComparison:
    a, b = read_record(path_a), read_record(path_b)
    for what in ("protocol_hash", "data_hash"):
        mine, other = getattr(a, what), getattr(b, what)
        if mine != other:
            kind = "protocols" if what == "protocol_hash" else "data"
            raise UserError(
                f"{path_a} ({mine[:12]}) and {path_b} ({other[:12]}) are of different {kind}: evaluate both again on "
                f"{a.task}."
            )
    discovery.load("protocols", a.protocol)  # brings its kinds of statistics with it
    outcome_a, outcome_b = (outcome_file.read(path.with_suffix(".npz")) for path in (path_a, path_b))
    for path, record in ((path_a, a), (path_b, b)):
        if outcome_file.sha256(path.with_suffix(".npz").read_bytes()) != record.outcome_hash:
            raise UserError(
                f"{path} and the .npz beside it do not belong together: run sparc-bench eval {record.model} --task "
                f"{record.task} --force."
            )
    if outcome_a.ids != outcome_b.ids:
        raise UserError(f"{path_a} and {path_b} are of different examples: evaluate both again on {a.task}.")
    only_a, only_b = _flips(outcome_a, outcome_b)
    return TaskComparison(
        a=a,
        b=b,
        metrics=_differences(
            {
                mine if mine == other else f"{mine} and {other}": (outcome_a.metrics[mine], outcome_b.metrics[other])
                for mine, other in _pairs(a, b)
                if mine in outcome_a.metrics and other in outcome_b.metrics
            }
        ),
        groups=_groups(outcome_a, outcome_b),
        only_a=only_a,
        only_b=only_b,
        notes=_notes(outcome_a, outcome_b),
    )


def _pairs(a: Record, b: Record) -> list[tuple[MetricName, MetricName]]:
    """Metrics of both, the headline first; where it goes by paths that the other lacks, every path with every path."""
    shared = [(name, name) for name in dict.fromkeys([*a.headline_metrics, *a.metrics]) if name in b.metrics]
    if set(a.headline_metrics) & set(b.headline_metrics):
        return shared
    return [(mine, other) for mine in a.headline_metrics for other in b.headline_metrics] + shared


def _differences(pairs: Mapping[str, tuple[Statistic, Statistic]]) -> tuple[Difference, ...]:
    estimates = {name: paired_difference(a, b) for name, (a, b) in pairs.items()}
    corrected = holm([estimate.p for estimate in estimates.values()])
    return tuple(
        Difference(name, a.value, b.value, estimates[name], p, a.less_is_better, a.unit)
        for (name, (a, b)), p in zip(pairs.items(), corrected, strict=True)
    )


def _groups(a: StoredOutcome, b: StoredOutcome) -> dict[str, tuple[Difference, ...]]:
    return {
        grouping: _differences(
            {group: (of[group], b.groups[grouping][group]) for group in of if group in b.groups[grouping]}
        )
        for grouping, of in a.groups.items()
        if grouping in b.groups
    }


def _flips(a: StoredOutcome, b: StoredOutcome) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Ids that one gets right (credit above one half) and the other does not."""
    if "correct" not in a.examples or "correct" not in b.examples:
        return None, None
    right_a, right_b = _right(a), _right(b)
    ids = np.array(a.ids, dtype=object)
    return tuple(ids[right_a & ~right_b]), tuple(ids[right_b & ~right_a])


def _right(outcome: StoredOutcome) -> ndarray:
    # an example that was not scored is NaN, and never right
    right: ndarray = np.asarray(outcome.examples["correct"], dtype=np.float64) > 0.5
    return right


def _notes(a: StoredOutcome, b: StoredOutcome) -> tuple[str, ...]:
    dropped = sorted({*a.dropped, *b.dropped})
    return (f"Not kept beside the records, to stay small: {', '.join(dropped)}.",) if dropped else ()


def render(comparison: Comparison, ids: bool = False) -> RenderableType:
    """Tables for the terminal: all metrics, then flips and groups of each task; differences in percentage points.

    Args:
        comparison: of two models.
        ids: lists the images that only one of them gets right, not their number alone.
    """
    a, b = comparison.a, comparison.b
    parts: list[RenderableType] = []
    for task in comparison.tasks:
        sample = f" @sample n={task.a.n}" if task.a.sample else f" (n={task.a.n})"
        parts += [Text(f"{visible(task.a.title)}{sample}", style="bold"), _table("metric", a, b, task.metrics)]
        if task.only_a is not None and task.only_b is not None:
            flips = ((a, b, task.only_a), (b, a, task.only_b))
            parts += [_flip_line(winner, loser, flipped, ids) for winner, loser, flipped in flips]
        for grouping, rows in task.groups.items():
            parts += [_table(f"by {grouping}", a, b, widest(rows)), *_left_out(rows)]
        parts += [Text(note) for note in task.notes]
        parts.append(Text(""))
    plain = any(row.unit != "percent" for task in comparison.tasks for row in task.metrics)
    points = "in percentage points" + ", of plain numbers as they are" * plain
    parts.append(
        Text(
            f"Differences are of the same images (first minus second), {points}, with 95 % intervals. A model is ahead "
            "where p is under .05: by an exact test of the images that differ (McNemar's of right and wrong answers), "
            "corrected for the number of rows of the table, unprinted groups among them (Holm). Intervals are of one "
            "row alone."
        )
    )
    if comparison.unshared:
        parts.append(Text(f"Only one of the two has a record of: {', '.join(comparison.unshared)}."))
    return Group(*parts)


def widest(rows: Sequence[Difference]) -> tuple[Difference, ...]:
    """The groups to print: all, in their order, or those that differ most where there are too many."""
    if len(rows) <= SHOWN_GROUPS:
        return tuple(rows)
    known = [row for row in rows if not np.isnan(row.estimate.value)]
    chosen = sorted(known, key=lambda row: -abs(row.estimate.value))[:SHOWN_GROUPS]
    return tuple(sorted(chosen, key=lambda row: -row.estimate.value))


def _left_out(rows: Sequence[Difference]) -> list[Text]:
    left = len(rows) - len(widest(rows))
    return [Text(f"Groups that differ less are not shown: {left} of {len(rows)}.")] if left else []


def _flip_line(winner: str, loser: str, flipped: tuple[str, ...], ids: bool) -> Text:
    listed = f": {', '.join(map(visible, flipped))}" if ids and flipped else ""
    return Text(f"Right in {winner} alone, not in {loser}: {len(flipped)} images{listed}")


def _table(first: str, a: str, b: str, rows: tuple[Difference, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(visible(first))
    for column in (a, b, "difference", "95 % interval", "images", "differ", "p"):
        table.add_column(column, justify="right")
    table.add_column("ahead")
    for row in rows:
        estimate = row.estimate
        values = ["-" if np.isnan(value) else in_unit(value, row.unit) for value in (row.a, row.b)]
        if np.isnan(estimate.value):
            table.add_row(visible(row.name), *values, "-", "-", str(estimate.clusters), "-", "-", "")
            continue
        difference, low, high = (
            in_unit(value, row.unit, signed=True) for value in (estimate.value, estimate.low, estimate.high)
        )
        ahead = {"a": a, "b": b, "open": "not clear"}[row.verdict]
        differing = "-" if estimate.differing is None else str(estimate.differing)
        counts = (str(estimate.clusters), differing, in_p(row.p))
        table.add_row(visible(row.name), *values, difference, f"[{low}, {high}]", *counts, ahead)
    return table


def in_p(p: float) -> str:
    """A p value as tables print it.

    >>> in_p(0.0312), in_p(0.00004), in_p(1.0)
    ('.031', '<.001', '1')
    """
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"
