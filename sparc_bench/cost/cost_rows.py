"""The rows of the cost table: measured ones in a CSV file, and those published in papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.discovery import cards_folder
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.foreign_text import csv_cell

BASE = "clip"
"""The objective that every row is compared with."""


class CostRow(Strict):
    """One cell: an objective at a batch size; 1 MB is a million bytes, a multiply-add is 2 FLOPs."""

    model_config = ConfigDict(allow_inf_nan=False)

    objective: str
    batch: int = Field(description="image-text pairs of a step (published: over all devices)")
    model: str = Field(description="timm's name of the image tower")
    status: Literal["measured", "does not fit", "failed", "published"]
    reason: str = Field(default="", description="reason of a missing measurement")

    step_seconds: float | None = Field(default=None, description="forward, backward, AdamW: median over the runs")
    clip_step_seconds: float | None = Field(default=None, description="the same of the alternating clip runs")
    step_seconds_over_clip: float | None = Field(default=None, description="median of the paired differences")
    step_ratio: float | None = Field(default=None, description="median of the paired ratios to clip")
    step_ratio_low: float | None = Field(default=None, description="smallest paired ratio")
    step_ratio_high: float | None = Field(default=None, description="largest paired ratio")
    own_seconds: float | None = Field(
        default=None, description="objective alone: forward and backward on detached tower outputs"
    )
    peak_mb: float | None = Field(
        default=None,
        description="CPU: peak resident memory of a process with one step; GPU: peak allocated memory of a step",
    )
    clip_peak_mb: float | None = Field(default=None, description="peak memory of the clip runs")
    peak_mb_over_clip: float | None = Field(default=None, description="median of the paired differences")
    peak_ratio: float | None = Field(default=None, description="median of the paired ratios")
    before_mb: float | None = Field(
        default=None, description="memory before the first step: libraries (CPU only) and weights"
    )
    own_mb: float | None = Field(default=None, description="memory that the objective alone adds at its peak")
    flops: int | None = Field(default=None, description="counted FLOPs of a step, forward and backward")
    clip_flops: int | None = Field(default=None, description="counted FLOPs of clip's step")
    flops_over_clip: int | None = None
    flop_ratio: float | None = None
    own_flops: int | None = Field(default=None, description="counted FLOPs of the objective alone")

    parameters: int | None = Field(default=None, description="number of parameters of the whole model")
    texts: int | None = Field(default=None, description="captions and negatives of each image")
    options: str = Field(default="", description="options of the objective (its defaults) as JSON")
    image_size: int | None = Field(default=None, description="edge of the image in pixels")
    text_width: int | None = None
    text_layers: int | None = None
    text_heads: int | None = None
    vocabulary: int | None = None
    context: int | None = Field(default=None, description="tokens of every caption, with BOS and EOS")
    device: str = Field(default="", description="cpu or cuda")
    device_name: str = ""
    precision: str = Field(default="", description="float32, or bf16 (autocast)")
    threads: int | None = Field(default=None, description="threads of torch on a CPU")
    torch: str = ""
    repeats: int | None = Field(default=None, description="number of runs of each median")
    commit: str = ""
    dirty: bool | None = Field(default=None, description="whether the code differed from the commit")
    source: str = "measured"

    @property
    def place(self) -> tuple[str, int, str, str]:
        """Objective, batch, model and device name, unique within a file."""
        return self.objective, self.batch, self.model, self.device_name

    @property
    def settings(self) -> tuple[object, ...]:
        """Settings that have to be equal for a cell to count as measured; FLOPs stand for the objective's code."""
        return (
            *self.place,
            *(self.flops, self.own_flops, self.texts, self.options, self.image_size, self.text_width),
            *(self.text_layers, self.text_heads, self.vocabulary, self.context, self.device, self.precision),
            *(self.threads, self.torch, self.repeats),
        )


class PublishedCosts(Strict):
    """A published table of costs: `tasks/costs/NAME.toml`."""

    title: str
    source: str
    remark: str
    model: str
    device: str
    batches: tuple[int, ...]
    tflops: dict[str, tuple[float, ...]] = Field(description="objective -> TFLOPs for each published batch")
    memory_mb: dict[str, tuple[float, ...]]

    def rows(self) -> list[CostRow]:
        """The rows of the cost table, compared with the CLIP of the same paper."""
        rows = []
        for objective, tflops in self.tflops.items():
            figures = zip(self.batches, tflops, self.memory_mb[objective], strict=False)
            for number, (batch, tflop, peak_mb) in enumerate(figures):
                clip_tflop, clip_mb = self.tflops[BASE][number], self.memory_mb[BASE][number]
                rows.append(
                    CostRow(
                        objective=objective,
                        batch=batch,
                        model=self.model,
                        status="published",
                        peak_mb=peak_mb,
                        clip_peak_mb=clip_mb,
                        peak_mb_over_clip=peak_mb - clip_mb,
                        peak_ratio=round(peak_mb / clip_mb, 4),
                        flops=round(tflop * 1e12),
                        clip_flops=round(clip_tflop * 1e12),
                        flops_over_clip=round((tflop - clip_tflop) * 1e12),
                        flop_ratio=round(tflop / clip_tflop, 4),
                        device_name=self.device,
                        source=f"{self.source}; {self.remark}",
                    )
                )
        return rows


def published() -> list[PublishedCosts]:
    """All published tables in `tasks/costs`."""
    folder = cards_folder("tasks") / "costs"
    return [parse(PublishedCosts, read_toml(path), str(path)) for path in sorted(folder.glob("*.toml"))]


def read_rows(file: Path) -> list[CostRow]:
    """The measured rows of a file; empty where the file is missing.

    Raises:
        UserError: the file is no cost table.
    """
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            found = [
                parse(CostRow, {key: value for key, value in line.items() if key and value}, f"line {number}")
                for number, line in enumerate(csv.DictReader(lines), 2)
            ]
    except (UserError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is no cost table ({error}): delete it, or choose another --results.") from None
    return [row for row in found if row.status != "published"]


def write_rows(file: Path, rows: Iterable[CostRow]) -> None:
    """Write all measured rows and the published ones."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(CostRow.model_fields), lineterminator="\n")
    writer.writeheader()
    everything: Sequence[CostRow] = [*sorted(rows, key=_order), *(row for table in published() for row in table.rows())]
    writer.writerows({key: csv_cell(value) for key, value in row.model_dump().items()} for row in everything)
    write_atomic(file, text.getvalue().encode())


def _order(row: CostRow) -> tuple[object, ...]:
    return row.model, row.device_name, row.objective != BASE, row.objective, row.batch
