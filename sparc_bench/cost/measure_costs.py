"""`sparc-bench cost`: the plan of cells, and the measurement of missing cells in turns with `clip`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparc_bench.cards import discovery
from sparc_bench.cost.batch_sizes import batch_sizes, listed
from sparc_bench.cost.cell import (
    MB,
    RUNS,
    VOCABULARY,
    Cell,
    StepCost,
    measure_own,
    measure_step,
    objective_alone,
    towers_of,
)
from sparc_bench.cost.cost_rows import BASE, CostRow, read_rows, write_rows
from sparc_bench.cost.flops import count
from sparc_bench.cost.fresh_process import CellFailedError, DoesNotFitError, in_fresh_process, in_this_process
from sparc_bench.errors import UserError, shortened
from sparc_bench.records.environment import git_state
from sparc_bench.training.precision import device_name

CELL_SECONDS = 600.0
"""Time limit of a cell: all its runs and the clip runs between them."""

DEFAULTS = {"cpu": ("vit_tiny_patch16_224", (8, 16, 32)), "cuda": ("vit_base_patch16_224", (64, 128, 256))}
"""Kind of device -> default image tower and batch sizes."""

FILE = Path("cost") / "cost.csv"
"""Path of the table within the results folder."""


@dataclass(frozen=True)
class Plan:
    """The cells of a table: `objectives` x `batches` on one model and device."""

    objectives: tuple[str, ...]
    batches: tuple[int, ...]
    model: str
    device: str
    repeats: int
    plugins: tuple[Path, ...] = ()

    def cells(self) -> list[Cell]:
        """All cells, small batches first and clip before the others: their costs predict those of the rest."""
        names = sorted(self.objectives, key=lambda name: (name != BASE, name))
        return [self.cell(name, batch) for batch in sorted(self.batches) for name in names]

    def cell(self, objective: str, batch: int) -> Cell:
        """The cell of an objective and a batch size."""
        return Cell(objective, batch, self.model, self.device, self.plugins)


def make_plan(
    objectives: str, batches: str | None, model: str | None, device: str, repeats: int, plugins: Sequence[Path]
) -> Plan:
    """The plan of the command line's options.

    Raises:
        UserError: an unknown objective or model, an invalid batch size, a device that is neither CPU nor GPU.
    """
    kind = torch.device(device).type
    if kind not in DEFAULTS:
        raise UserError(f"Memory cannot be measured on '{device}': give --device cpu or cuda.")
    default_model, default_batches = DEFAULTS[kind]
    names = discovery.names("objectives") if objectives == "all" else listed(objectives)
    for name in names:
        discovery.load("objectives", name)
    towers_of(model or default_model)
    sizes = batch_sizes(batches) if batches else default_batches
    if not names or not sizes:
        raise UserError(
            "There is nothing to measure: name objectives and batches, such as --objectives all --batch 8,16."
        )
    return Plan(tuple(dict.fromkeys(names)), sizes, model or default_model, device, repeats, tuple(plugins))


def run(
    plan: Plan, file: Path, force: bool, report: Callable[[str], None], advance: Callable[[], None]
) -> list[CostRow]:
    """Measure all cells that `file` lacks, and write each row immediately.

    Args:
        plan: cells to measure.
        file: CSV file; a row counts unless it failed or has other settings (see `CostRow.settings`).
        force: True to measure all cells again.
        report: function called with a description of each run.
        advance: function called after each cell.

    Returns:
        The rows of the plan, in the order of its cells.
    """
    kept = {row.place: row for row in read_rows(file)}
    rows: list[CostRow] = []
    for cell in plan.cells():
        blank = unmeasured_row(cell, plan.repeats)
        there = kept.get(blank.place)
        if force or there is None or there.status == "failed" or there.settings != blank.settings:
            there = blank if blank.status == "failed" else _measured(cell, blank, rows, report)
            kept[there.place] = there
            write_rows(file, kept.values())
        rows.append(there)
        advance()
    write_rows(file, kept.values())
    return rows


def unmeasured_row(cell: Cell, repeats: int) -> CostRow:
    """The row of a cell before its measurement: its settings and counted FLOPs."""
    towers, device = towers_of(cell.model), torch.device(cell.device)
    commit, dirty = git_state()
    row: dict[str, Any] = {
        "objective": cell.objective,
        "batch": cell.batch,
        "model": cell.model,
        "image_size": towers.image.size,
        "text_width": towers.text.width,
        "text_layers": towers.text.depth,
        "text_heads": towers.text.heads,
        "vocabulary": VOCABULARY,
        "context": towers.text.context,
        "device": device.type,
        "device_name": device_name(device),
        "precision": cell.precision,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "repeats": repeats,
        "commit": commit,
        "dirty": dirty,
    }
    try:
        objective = objective_alone(cell, torch.device("meta"))
        flops, base = count(cell), count(Cell(BASE, cell.batch, cell.model, cell.device))
    except Exception as error:  # any error of an objective becomes the reason of its row, and the others go on
        return CostRow(**row, status="failed", reason=f"FLOPs: {type(error).__name__}: {shortened(str(error), 300)}")
    return CostRow(
        **row,
        status="measured",
        texts=objective.captions_per_image + objective.negatives_per_image,
        options=json.dumps(objective.options.model_dump(mode="json"), sort_keys=True),
        flops=flops.step,
        clip_flops=base.step,
        flops_over_clip=flops.step - base.step,
        flop_ratio=round(flops.step / base.step, 6),
        own_flops=flops.own,
    )


@dataclass(frozen=True)
class _Paired:
    clip: StepCost
    step: StepCost
    own: StepCost


def _measured(cell: Cell, row: CostRow, before: Sequence[CostRow], report: Callable[[str], None]) -> CostRow:
    smaller = [each for each in before if each.objective == cell.objective and each.batch < cell.batch]
    clips = [each for each in before if each.objective == BASE and each.batch <= cell.batch]
    try:
        _predict(row, smaller, clips, memory_available(torch.device(cell.device)))
        return row.model_copy(update=_figures(_runs(cell, row.repeats or 1, report)))
    except DoesNotFitError as error:
        return row.model_copy(update={"status": "does not fit", "reason": str(error)})
    except CellFailedError as error:
        return row.model_copy(update={"status": "failed", "reason": str(error)})


def _runs(cell: Cell, repeats: int, report: Callable[[str], None]) -> list[_Paired]:
    """Costs of repeated runs, each of clip's step, the objective's step and the objective alone."""
    end = time.monotonic() + CELL_SECONDS
    clip = Cell(BASE, cell.batch, cell.model, cell.device)
    runs: list[_Paired] = []
    for number in range(repeats):
        report(f"{cell.objective}, batch {cell.batch}, run {number + 1} of {repeats}")
        costs = []
        for measure, of in ((measure_step, clip), (measure_step, cell), (measure_own, cell)):
            try:
                costs.append(_step_cost(measure, of, end - time.monotonic()))
                if len(costs) == 1 and not runs:
                    _refuse_slow(2 * repeats, cell.device, costs[0].seconds)
            except (DoesNotFitError, CellFailedError) as error:
                partner = f"{BASE} at this batch: " if of is clip and cell.objective != BASE else ""
                raise type(error)(f"{partner}{error}") from None
        runs.append(_Paired(*costs))
    return runs


def _refuse_slow(runs: int, device: str, step_seconds: float) -> None:
    seconds = runs * sum(RUNS[torch.device(device).type]) * step_seconds
    if seconds > CELL_SECONDS:
        raise DoesNotFitError(f"time: {seconds / 60:.0f} minutes expected, at {step_seconds:.0f} s a step")


def _step_cost(measure: Callable[[Cell], StepCost], cell: Cell, seconds: float) -> StepCost:
    if torch.device(cell.device).type == "cpu":
        return in_fresh_process(measure, cell, seconds)
    if seconds < 0:
        raise DoesNotFitError("time: the runs took longer than ten minutes")
    return in_this_process(measure, cell)


def _figures(runs: Sequence[_Paired]) -> dict[str, float]:
    median = statistics.median
    ratios = [run.step.seconds / run.clip.seconds for run in runs]
    figures = {
        "step_seconds": median(run.step.seconds for run in runs),
        "clip_step_seconds": median(run.clip.seconds for run in runs),
        "step_seconds_over_clip": median(run.step.seconds - run.clip.seconds for run in runs),
        "step_ratio": median(ratios),
        "step_ratio_low": min(ratios),
        "step_ratio_high": max(ratios),
        "own_seconds": median(run.own.seconds for run in runs),
        "peak_mb": median(run.step.peak_bytes for run in runs) / MB,
        "clip_peak_mb": median(run.clip.peak_bytes for run in runs) / MB,
        "peak_mb_over_clip": median(run.step.peak_bytes - run.clip.peak_bytes for run in runs) / MB,
        "peak_ratio": median(run.step.peak_bytes / run.clip.peak_bytes for run in runs),
        "before_mb": median(run.step.before_bytes for run in runs) / MB,
        "own_mb": median(run.own.peak_bytes - run.own.before_bytes for run in runs) / MB,
    }
    return {name: round(value, 6) for name, value in figures.items()} | {"parameters": runs[0].step.parameters}


def _predict(row: CostRow, smaller: Sequence[CostRow], clips: Sequence[CostRow], available_mb: float | None) -> None:
    """Raise DoesNotFitError for a cell that will not fit, as predicted from smaller cells.

    Time: counted FLOPs at the speed of the objective's smallest measured batch, or of clip's without one. Memory: a
    line through the two largest smaller batches, or through one and the weights with AdamW's two moments.
    """
    for each in (*clips, *smaller):
        if each.status == "does not fit":
            raise DoesNotFitError(f"{each.objective} at batch {each.batch} does not ({each.reason})")
    done = [each for each in smaller if each.status == "measured"]
    timed = (done or [each for each in clips if each.status == "measured"])[:1]
    if timed:
        [speed] = [(each.flops or 0) / (each.step_seconds or 1) for each in timed]
        steps = sum(RUNS[row.device]) * (row.repeats or 1)
        seconds = steps * ((row.flops or 0) + (row.clip_flops or 0) + (row.own_flops or 0)) / speed
        if seconds > CELL_SECONDS:
            step = (row.flops or 0) / speed
            raise DoesNotFitError(f"time: {seconds / 60:.0f} minutes expected, at {step:.0f} s a step")
    if done and available_mb is not None:
        expected = _memory(row.batch, done)
        if expected > available_mb:
            raise DoesNotFitError(f"memory: {expected / 1e3:.1f} GB expected, {available_mb / 1e3:.1f} GB available")


def _memory(batch: int, done: Sequence[CostRow]) -> float:
    last = done[-1]
    if len(done) > 1:
        slope = ((last.peak_mb or 0) - (done[-2].peak_mb or 0)) / (last.batch - done[-2].batch)
        return (last.peak_mb or 0) + slope * (batch - last.batch)
    fixed = (last.before_mb or 0) + 2 * 4 * (last.parameters or 0) / MB
    return fixed + max(0.0, (last.peak_mb or 0) - fixed) * batch / last.batch


def memory_available(device: torch.device) -> float | None:
    """Free memory of the device in MB; None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / MB
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 / MB if found else None
