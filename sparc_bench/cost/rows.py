"""A row of the cost table, its file, and the rows that a paper published."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.discovery import cards_folder
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic

BASE = "clip"
"""The objective that every row is set against."""


class Row(Strict):
    """One cell: an objective at a batch size; MB are millions of bytes, a multiplication with its addition 2 FLOPs."""

    objective: str
    batch: int = Field(description="pairs of a step (published: of all devices together)")
    model: str = Field(description="timm's name of the image tower")
    status: Literal["measured", "does not fit", "failed", "published"]
    reason: str = Field(default="", description="why there is no measurement")

    step_seconds: float | None = Field(default=None, description="forward, backward, AdamW: median over the runs")
    clip_step_seconds: float | None = Field(default=None, description="of the clip runs that alternated with them")
    step_seconds_over_clip: float | None = Field(default=None, description="median of the paired differences")
    step_ratio: float | None = Field(default=None, description="median of the paired ratios to clip")
    step_ratio_low: float | None = Field(default=None, description="smallest paired ratio")
    step_ratio_high: float | None = Field(default=None, description="largest paired ratio")
    own_seconds: float | None = Field(
        default=None, description="forward and backward of the objective alone, on detached tower outputs"
    )
    peak_mb: float | None = Field(
        default=None,
        description="CPU: peak resident memory of a process that takes a step; GPU: peak allocated in a step",
    )
    clip_peak_mb: float | None = Field(default=None, description="of the clip runs")
    peak_mb_over_clip: float | None = Field(default=None, description="median of the paired differences")
    peak_ratio: float | None = Field(default=None, description="median of the paired ratios")
    before_mb: float | None = Field(default=None, description="before the first step: libraries (CPU only) and weights")
    own_mb: float | None = Field(default=None, description="what the objective alone adds at its peak")
    flops: int | None = Field(default=None, description="of a step, forward and backward, counted")
    clip_flops: int | None = Field(default=None, description="of clip's step")
    flops_over_clip: int | None = None
    flop_ratio: float | None = None
    own_flops: int | None = Field(default=None, description="of the objective alone")

    parameters: int | None = Field(default=None, description="of the whole model")
    texts: int | None = Field(default=None, description="captions and false captions of each image")
    options: str = Field(default="", description="of the objective: its defaults, as JSON")
    image_size: int | None = Field(default=None, description="pixels along an edge")
    text_width: int | None = None
    text_layers: int | None = None
    text_heads: int | None = None
    vocabulary: int | None = None
    context: int | None = Field(default=None, description="tokens of every caption, BOS and EOS among them")
    device: str = Field(default="", description="cpu or cuda")
    device_name: str = ""
    precision: str = Field(default="", description="bf16: autocast")
    threads: int | None = Field(default=None, description="torch's, on a CPU")
    torch: str = ""
    repeats: int | None = Field(default=None, description="runs behind each median")
    commit: str = ""
    dirty: bool | None = Field(default=None, description="whether the code differed from the commit")
    source: str = "measured"

    @property
    def place(self) -> tuple[str, int, str, str]:
        """What a file holds one row of."""
        return self.objective, self.batch, self.model, self.device_name

    @property
    def settings(self) -> tuple[object, ...]:
        """What has to be equal for a cell to count as measured; the FLOPs stand for the code of the objective."""
        return (
            *self.place,
            *(self.flops, self.own_flops, self.texts, self.options, self.image_size, self.text_width),
            *(self.text_layers, self.text_heads, self.vocabulary, self.context, self.device, self.precision),
            *(self.threads, self.torch, self.repeats),
        )


class PublishedCosts(Strict):
    """A paper's table of costs: `tasks/costs/NAME.toml`."""

    title: str
    source: str
    remark: str
    model: str
    device: str
    batches: tuple[int, ...]
    tflops: dict[str, tuple[float, ...]] = Field(description="objective -> per batch, as far as it was run")
    memory_mb: dict[str, tuple[float, ...]]

    def rows(self) -> list[Row]:
        """As rows of the cost table, each beside the same paper's CLIP."""
        rows = []
        for objective, tflops in self.tflops.items():
            figures = zip(self.batches, tflops, self.memory_mb[objective], strict=False)
            for number, (batch, tflop, peak_mb) in enumerate(figures):
                clip_tflop, clip_mb = self.tflops[BASE][number], self.memory_mb[BASE][number]
                rows.append(
                    Row(
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
    """All tables in `tasks/costs`."""
    folder = cards_folder("tasks") / "costs"
    return [parse(PublishedCosts, read_toml(path), str(path)) for path in sorted(folder.glob("*.toml"))]


def read_rows(file: Path) -> list[Row]:
    """The measured rows of a file; none where there is no file.

    Raises:
        UserError: the file is no cost table.
    """
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            found = [
                parse(Row, {key: value for key, value in line.items() if key and value}, f"line {number}")
                for number, line in enumerate(csv.DictReader(lines), 2)
            ]
    except (UserError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is no cost table ({error}): delete it, or choose another --results.") from None
    return [row for row in found if row.status != "published"]


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """All rows and the published ones beside them."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    everything: Sequence[Row] = [*sorted(rows, key=_order), *(row for table in published() for row in table.rows())]
    writer.writerows(row.model_dump() for row in everything)
    write_atomic(file, text.getvalue().encode())


def _order(row: Row) -> tuple[object, ...]:
    return row.model, row.device_name, row.objective != BASE, row.objective, row.batch
