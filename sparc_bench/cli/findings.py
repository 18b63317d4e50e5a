"""Findings of a comparison in a few lines: who is ahead where, and which differences are not clear."""

from __future__ import annotations

from collections.abc import Sequence

from sparc_bench.metrics.unit import in_unit
from sparc_bench.report.compare import Comparison, Difference
from sparc_bench.report.ranking import Section

NAMED = 2
"""Tasks that a line names."""


def found(comparison: Comparison) -> list[str]:
    """On which tasks each of two models is ahead, by the headline of each task; the largest differences first."""
    differences = _headlines(comparison)
    lines = [f"Found on {len(differences)} tasks, by the headline of each (differences in points, of the same images):"]
    for side, model in (("a", comparison.a), ("b", comparison.b)):
        ahead = {task: row for task, row in differences.items() if row.verdict == side}
        ordered = sorted(ahead, key=lambda task: -abs(ahead[task].estimate.value))
        named = [f"{task} ({in_unit(abs(ahead[task].estimate.value), ahead[task].unit)})" for task in ordered]
        lines.append(f"  {model} is ahead on {_some(named)}")
    return lines


def not_clear(comparison: Comparison, sections: Sequence[Section]) -> list[str]:
    """Differences that may be none, results that a reference row may reach, and what no interval holds."""
    open_tasks = [task for task, row in _headlines(comparison).items() if row.verdict == "open"]
    lines = ["Not clear:", f"  who is ahead on {_some(open_tasks)}"]
    for model in (comparison.a, comparison.b):
        near = [
            section.task
            for section in sections
            if section.main and any(row.model == model and not row.clear for row in section.rows)
        ]
        if near:
            lines.append(f"  whether {model} is above its reference rows on {_some(near)}")
    return [*lines, "  how far trainings of one recipe differ: one seed of each was trained, and no interval holds it"]


def _headlines(comparison: Comparison) -> dict[str, Difference]:
    """Task -> the difference of its headline."""
    return {task.a.task: task.metrics[0] for task in comparison.tasks if task.metrics}


def _some(names: Sequence[str]) -> str:
    """Number of the tasks, and the first of their names.

    >>> _some(["a", "b", "c", "d"])
    '4: a, b and 2 more'
    """
    if not names:
        return "none"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)}: {', '.join(names[:NAMED])}{more}"
