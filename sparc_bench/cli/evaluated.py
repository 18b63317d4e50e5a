"""The table that `eval` and `score` print, and the sentences of failed tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from sparc_bench.cli.mistakes import fail
from sparc_bench.foreign_text import visible
from sparc_bench.metrics.unit import SIGNS, in_unit
from sparc_bench.terminal import table

if TYPE_CHECKING:  # the tables of list and show need no torch
    from sparc_bench.evaluation.pipeline import Result
    from sparc_bench.metrics.metric_name import MetricName
    from sparc_bench.records.record import Metric, Record


def evaluated(results: Sequence[Result]) -> Table:
    """One row for each headline metric of each record, the models of a task together.

    A record that stands alone shows every metric, the headline first. Beside the value stand its interval, the best
    reference row that it has to be clear of, and whether it is; a tie count beside the headline.
    """
    from sparc_bench.report.ranking import CEILINGS, reference_values

    rows: list[tuple[str, ...]] = []
    plain = any(
        each.record.metrics[metric].unit != "percent"
        for each in results
        if each.record
        for metric in _shown(each.record, alone=len(results) == 1)
    )
    for task in dict.fromkeys(result.task for result in results):
        of_task = [result for result in results if result.task == task]
        found = [result.record for result in of_task if result.record is not None]
        marks = [f"n={record.n}{', @sample' * record.sample}{', testing' * bool(record.limit)}" for record in found[:1]]
        rows.append((f"{task} ({marks[0]})" if marks else task, "", "", "", "", ""))
        rows += [("", result.model, "failed", "", "", "") for result in of_task if result.record is None]
        for result in of_task:
            record = result.record
            for metric in _shown(record, alone=len(results) == 1) if record else ():
                assert record is not None
                value = record.metrics[metric]
                floors = [(v, name) for name, v in reference_values(record, metric).items() if name not in CEILINGS]
                less = value.less_is_better
                floor, name = (min if less else max)(floors, default=(None, ""))
                rows.append(
                    (
                        f"  {metric}" + (f", {SIGNS[value.unit]}" if plain and SIGNS[value.unit] else ""),
                        result.model + ("" if record.trained_for(metric) else " (untrained path)"),
                        with_interval(value),
                        "" if floor is None else f"{name} {in_unit(floor, value.unit)}",
                        "" if floor is None else "yes" if _clear(value, floor, less) else "no",
                        _aside(result, metric in record.headline_metrics),
                    )
                )
    column = "value [95 %]" if plain else "% [95 %]"
    return table(("task", "model", column, "reference row", "clear of it", ""), rows, whole=(1, 2, 3, 4))


def said(results: Sequence[Result]) -> str:
    """The notes of a record that stands alone, a line each; they say how a file was read and what was left out."""
    records = [result.record for result in results if result.record is not None]
    return "".join(f"Note: {visible(note)}\n" for note in records[0].notes) if len(results) == len(records) == 1 else ""


def _clear(metric: Metric, floor: float, less_is_better: bool) -> bool:
    """Whether the whole interval is on the better side of a reference row."""
    if metric.low is None or metric.high is None:
        return False
    return metric.high < floor if less_is_better else metric.low > floor


def _aside(result: Result, headline: bool) -> str:
    """Seconds of the evaluation, or "kept"; beside the headline the number of ties, if any."""
    assert result.record is not None
    said = "kept" if result.kept else f"{result.record.seconds:.0f} s"
    return f"{said}, {result.record.ties} ties" if headline and result.record.ties else said


def _shown(record: Record, alone: bool) -> list[MetricName]:
    return list(dict.fromkeys((*record.headline_metrics, *(record.metrics if alone else ()))))


def with_interval(metric: Metric) -> str:
    """`12.3 [11.0, 13.5]` in the metric's unit; a dash where there was nothing to average."""
    if metric.value is None:
        return "-"
    if metric.low is None or metric.high is None:
        return in_unit(metric.value, metric.unit)
    value, low, high = (in_unit(each, metric.unit) for each in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def complain(results: Sequence[Result]) -> int:
    """Print the sentences of failed tasks to standard error and return the exit code: 0, 1 (some), 2 (all)."""
    failed = [result for result in results if result.error is not None]
    sentences = dict.fromkeys(result.error for result in failed)
    if len(sentences) == 1 and len(failed) == len(results):
        return fail(str(failed[0].error))
    if failed:
        fail("\n".join(f"{result.model} on {result.task}: {result.error}" for result in failed))
    return (2 if len(failed) == len(results) else 1) if failed else 0
