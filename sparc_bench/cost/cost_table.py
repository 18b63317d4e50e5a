"""The cost table for the terminal: settings of the measurement, cells, and the published tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sparc_bench.cost.cost_rows import BASE, CostRow, PublishedCosts, published
from sparc_bench.terminal import table


def render(rows: Sequence[CostRow]) -> RenderableType:
    """The table: rows by objective and batch, reasons of missing measurements, published tables."""
    ordered = sorted(rows, key=lambda row: (row.objective != BASE, row.objective, row.batch))
    columns = (
        *("objective", "batch", "texts", f"step s (x {BASE})", "own s", f"peak MB (x {BASE})", "own MB"),
        *(f"TFLOP (x {BASE})", "own GFLOP"),
    )
    cells = table(columns, [_cells(row) for row in ordered])
    reasons = [f"{row.objective} at batch {row.batch} {row.status}: {row.reason}" for row in ordered if row.reason]
    parts: list[RenderableType] = [*(Text(line) for line in header(rows[0])), Text(""), cells]
    parts += [Text(""), *(Text(reason) for reason in reasons)] if reasons else []
    for costs in published():
        parts += [Text(""), Text(f"{costs.title} ({costs.source}): {costs.remark}."), _published(costs)]
    return Group(*parts)


def header(row: CostRow) -> list[str]:
    """Lines with the settings of all rows: towers, machine, precision, number of runs, definitions of the columns."""
    threads = "" if row.threads is None else f", {row.threads} thread{'s' * (row.threads != 1)}"
    memory = (
        "peak resident memory of a fresh process (libraries, weights, gradients, AdamW, activations)"
        if row.device == "cpu"
        else "peak allocated memory of a step"
    )
    return [
        f"{row.model} at {row.image_size} px; text tower {row.text_layers} layers, {row.text_width} wide, "
        f"{row.text_heads} heads, vocabulary {row.vocabulary}; captions fill the context of {row.context}.",
        f"{row.device_name}{threads}, {row.precision}, torch {row.torch}; medians over {row.repeats} "
        f"run{'s' * (row.repeats != 1)}, each beside one of {BASE}; {BASE}'s own row is {BASE} against itself.",
        f"Step: forward, backward, AdamW. Own: the objective alone on detached tower outputs, forward and backward. "
        f"MB: {memory}. FLOPs are counted.",
    ]


def _cells(row: CostRow) -> tuple[str, ...]:
    name = row.objective, str(row.batch), "-" if row.texts is None else str(row.texts)
    flops = _beside(row.flops, row.flop_ratio, 1e-12), _number(row.own_flops, 1e-9)
    if row.status != "measured":
        return (*name, row.status, "", "", "", *flops)
    return (
        *name,
        *(_beside(row.step_seconds, row.step_ratio), _number(row.own_seconds)),
        *(_beside(row.peak_mb, row.peak_ratio), _number(row.own_mb), *flops),
    )


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return "-"
    value *= unit
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _beside(value: float | None, ratio: float | None, unit: float = 1.0) -> str:
    return _number(value, unit) if ratio is None else f"{_number(value, unit)} ({ratio:.3f})"


def _published(costs: PublishedCosts) -> RenderableType:
    rows = costs.rows()
    lines = []
    for objective in costs.tflops:
        own = {row.batch: row for row in rows if row.objective == objective}
        found = [own.get(batch) for batch in costs.batches]
        lines.append(
            (
                objective,
                *(_beside(row.flops, row.flop_ratio, 1e-12) if row else "-" for row in found),
                *(_beside(row.peak_mb, row.peak_ratio) if row else "-" for row in found),
            )
        )
    columns = ("objective", *(f"TFLOP {batch}" for batch in costs.batches), *(f"MB {batch}" for batch in costs.batches))
    return table(columns, lines)
