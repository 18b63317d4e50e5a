"""The log of a run: a JSON line per step, a progress bar and, on request, TensorBoard files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic, written
from sparc_bench.files.json_text import json_value
from sparc_bench.terminal import ProgressDisplay
from sparc_bench.training.loop import StepReport
from sparc_bench.training.validate import Scores

SHOWN = ("loss", "global_loss", "local_loss", "fine_loss", "fine_accuracy")
"""Figures beside the progress bar."""


class RunLog:
    """`log.jsonl` of a run folder; a resumed run first removes the lines after its checkpoint's step.

    Attributes:
        validated: whether the log of a resumed run holds the validation after its checkpoint's step.
        cpu_seconds: CPU time of the steps up to there, without processes that only loaded.
    """

    def __init__(self, folder: Path, name: str, start: int, steps: int, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "log.jsonl"
        kept = _keep_until(self._file, start)
        self.validated = any("val" in line and line["step"] == start for line in kept)
        self.cpu_seconds = sum(used for line in kept if isinstance(used := line.get("cpu_seconds"), int | float))
        with written(self._file):
            self._opened = self._file.open("a", encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard") if tensorboard else None
        self._progress = ProgressDisplay(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            transient=False,
        )
        self._task: TaskID = self._progress.add_task(name, total=steps, completed=start, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        with contextlib.suppress(OSError):  # a full disk has been reported by the line that it refused
            self._opened.close()
        if self._board is not None:
            self._board.close()

    def step(self, report: StepReport) -> None:
        """Log a training step."""
        self._line({"step": report.step, **report.figures})
        for item in report.unreadable:
            self.event({"step": report.step, "unreadable": item})
        shown = " ".join(f"{key} {report.figures[key]:.3f}" for key in SHOWN if key in report.figures)
        shown += f" {report.figures['images_per_second']:.0f} images/s"
        self._progress.update(self._task, completed=report.step, figures=shown)

    def event(self, values: dict[str, Any]) -> None:
        """Log any other event: an unreadable image, the choice of precision."""
        self._line(values)
        if "start" in values:
            begins = values["start"]
            new = f"; new: {', '.join(begins['heads_new'])}" if begins["heads_new"] else ""
            sentence = f"starts with the towers of {begins['init']} and its {', '.join(begins['heads_taken'])}{new}"
            self._progress.console.print(sentence, highlight=False, soft_wrap=True)
        if "begun_with" in values:
            sentence = (
                f"goes on after step {values['resumed']} with {_processes(values['processes'])}; it began with "
                f"{values['begun_with']}: batches are the same, sums in another order may differ in their last digits"
            )
            self._progress.console.print(sentence, highlight=False, soft_wrap=True)

    def validation(self, step: int, scores: Scores) -> None:
        """Log all scores on val, and print those that the tasks rank by."""
        self._line({"step": step, "val": dict(scores.values)})
        figures = " ".join(f"{name} {scores.values[name]:.3f}" for name in scores.headlines)
        self._progress.console.print(f"step {step}: val {figures}", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def images(self, of: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of images within the block; the function adds to it."""
        bar = self._progress.add_task(of, total=total, figures="")
        try:
            yield lambda number: self._progress.advance(bar, number)
        finally:
            self._progress.remove_task(bar)

    def _line(self, values: dict[str, Any]) -> None:
        with written(self._file):
            self._opened.write(json.dumps(values) + "\n")
            self._opened.flush()
        if self._board is not None and "step" in values:
            figures = values.get("val", values)
            prefix = "val" if "val" in values else "train"
            for name, value in figures.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"{prefix}/{name}", value, values["step"])


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


class SilentLog:
    """A log that writes nothing, for every rank but the first."""

    validated = False
    cpu_seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, report: StepReport) -> None:
        """Ignore a training step."""

    def event(self, values: dict[str, Any]) -> None:
        """Ignore an event."""

    def validation(self, step: int, scores: Scores) -> None:
        """Ignore a validation."""

    @contextlib.contextmanager
    def images(self, of: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002 - as `RunLog.images`
        """Show nothing."""
        yield lambda _: None


def _keep_until(file: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines of a log up to a step, and return them."""
    if not file.is_file():
        return []
    kept = []
    for line in file.read_bytes().splitlines():
        try:
            values = json_value(line)
        except ValueError:
            break  # an interrupted write
        done = values.get("step", 0) if isinstance(values, dict) else None
        if not isinstance(done, int):
            break  # no line of ours
        if step > 0 and done <= step:
            kept.append(values)
    write_atomic(file, "".join(json.dumps(values) + "\n" for values in kept).encode())
    return kept


def _tensorboard(folder: Path) -> Any:  # noqa: ANN401 - an optional library's class
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("TensorBoard is not installed: pip install 'sparc-bench[tensorboard]'.") from None
    return SummaryWriter(str(folder))
