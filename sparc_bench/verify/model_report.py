"""The report of `sparc-bench verify`: findings as a table, advice, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from sparc_bench.encoder import Encoder
from sparc_bench.terminal import table
from sparc_bench.verify.finding import Finding

_STYLE = {"ok": "green", "note": "cyan", "warning": "yellow", "fail": "bold red"}
_UNJUDGED = ("not judged", "left out")


@dataclass(frozen=True)
class ModelReport:
    """The findings of all checks on a model.

    Attributes:
        encoder: the model.
        findings: name of the check -> its finding, in order.
        probe_table: the [probe] table for a card that has none, where nothing failed; else empty.
        seconds: duration of all checks.
    """

    encoder: Encoder
    findings: Mapping[str, Finding]
    probe_table: str
    seconds: float

    def having(self, status: str) -> dict[str, Finding]:
        """The findings with a status, by the name of their check."""
        return {name: finding for name, finding in self.findings.items() if finding.status == status}


def render(report: ModelReport) -> RenderableType:
    """The whole report for the terminal."""
    card = report.encoder.card
    judged = {name: finding for name, finding in report.findings.items() if finding.status not in _UNJUDGED}
    rows = [(name, finding.status, finding.measured, finding.expected) for name, finding in judged.items()]
    drawn = table(("check", "", "measured", "expected"), rows)
    parts: list[RenderableType] = [Text.assemble((card.name, "bold"), f": {card.title} ({_set_up(report)})\n"), drawn]
    unjudged = [
        Text(f"{status}: {', '.join(names)} ({reason})", style="dim")
        for status in _UNJUDGED
        for reason, names in _by_reason(report.having(status)).items()
    ]
    parts += [Text(""), *unjudged] if unjudged else []
    advised = [(name, finding) for name, finding in report.findings.items() if finding.advice]
    if advised:
        parts.append(Text("\nwhat to change or to know", style="bold"))
    for status in ("fail", "warning", "note"):
        for name, finding in advised:
            if finding.status == status:
                parts.append(Text.assemble("  ", (status, _STYLE[status]), f", {name}: {finding.advice}"))
    if report.probe_table:
        parts += [Text("\nfor the card, so that others can compare (its author's set-up only)", style="bold")]
        parts += [Text(report.probe_table)]
    parts.append(Text.assemble("\n", (verdict(report), "bold"), f" ({report.seconds:.1f} s)"))
    return Group(*parts)


def _by_reason(findings: Mapping[str, Finding]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, finding in findings.items():
        reasons.setdefault(finding.measured, []).append(name)
    return reasons


def _set_up(report: ModelReport) -> str:
    encoder = report.encoder
    return f"weights {encoder.weights_hash[:12]}, {encoder.precision} on {encoder.device}"


def verdict(report: ModelReport) -> str:
    """The verdict in one or two sentences: whether to trust the model's numbers, else the first thing to change."""
    name = report.encoder.card.name
    failed, warned = report.having("fail"), report.having("warning")
    warnings = f"{len(warned)} {'warning' if len(warned) == 1 else 'warnings'} ({', '.join(warned)})"
    if failed:
        more = list(failed)[1:]
        rest = f" Failed as well: {', '.join(more)}." if more else ""
        rest += f" {warnings.capitalize()}." if warned else ""
        return f"Do not trust numbers of {name} yet. {next(iter(failed.values())).advice}{rest}"
    if all(finding.status == "left out" for finding in report.findings.values()):
        return f"Nothing of {name} could be judged: no check applies to what it gives."
    if warned:
        return f"{name} is ready, with {warnings}: read what to change above."
    return f"{name} is ready: nothing failed, no warning."
