"""How a check of a data set is printed: the table, what to change, the verdict."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from sparc_bench.catalogue.examine import Report, verdict
from sparc_bench.terminal import table

_MARK = {"ok": "ok", "note": "note", "fail": "wrong", "left out": "-"}
_STYLE = {"fail": "bold red", "note": "cyan"}


def render(report: Report) -> RenderableType:
    """The whole report."""
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
