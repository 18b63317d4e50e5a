"""The report of `sparc-bench data check`: findings as a table, advice, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from sparc_bench.catalogue.data_card import DataCard
from sparc_bench.files.annotations import some
from sparc_bench.terminal import table
from sparc_bench.verify.finding import Finding

_MARK = {"ok": "ok", "note": "note", "fail": "wrong", "left out": "-"}
_STYLE = {"fail": "bold red", "note": "cyan"}

ABSENT = "absent"
"""Measured value of a part that is not on disk."""


@dataclass(frozen=True)
class DataReport:
    """The findings of a check of one data set.

    Attributes:
        card: the data card.
        home: folder of the data set; None for built-in data.
        findings: (part or check, its finding), in order.
    """

    card: DataCard
    home: Path | None
    findings: tuple[tuple[str, Finding], ...]

    @property
    def failed(self) -> list[str]:
        """Names of all failed checks."""
        return [name for name, finding in self.findings if finding.status == "fail"]


def render(report: DataReport) -> RenderableType:
    """The whole report for the terminal."""
    where = f" ({report.home})" if report.home is not None else ""
    rows = [(name, _MARK[each.status], each.measured, each.expected) for name, each in report.findings]
    parts: list[RenderableType] = [
        Text.assemble((report.card.name, "bold"), f": {report.card.title}{where}\n"),
        table(("what", "", "found", "expected"), rows),
    ]
    advised = [(name, each) for name, each in report.findings if each.advice]
    if advised:
        parts.append(Text("\nwhat to change or to know", style="bold"))
    for status in ("fail", "note"):
        for name, each in advised:
            if each.status == status:
                parts.append(Text.assemble("  ", (_MARK[status], _STYLE[status]), f", {name}: {each.advice}"))
    parts.append(Text(f"\n{verdict(report)}", style="bold"))
    return Group(*parts)


def verdict(report: DataReport) -> str:
    """The verdict in one sentence: whether tasks can use this data."""
    name = report.card.name
    if report.failed:
        return f"{name}: {len(report.failed)} wrong ({some(list(dict.fromkeys(report.failed)))}); see what to change."
    parts = [part for part, finding in report.findings if finding.measured == ABSENT]
    tasks = [task for task, finding in report.findings if finding.measured.endswith(f": {ABSENT}")]
    if parts or tasks:
        which = f"absent: {some(parts)}" if parts else f"not for {some(tasks)}"
        return f"{name} is in order as far as it is there ({which})."
    return f"{name} is in order."
