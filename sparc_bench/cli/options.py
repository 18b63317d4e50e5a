"""Options that several commands share, and the checks of their values before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sparc_bench.cli.first_checks import has_no_gpu
from sparc_bench.errors import UserError

DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="SPARC_BENCH_DATA", help="Folder that holds one folder per data set (scenes1 needs none)."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", help="A Python file with a data set, an encoder family, a loss or a protocol; repeatable."
    ),
]
Results = Annotated[Path, typer.Option(help="Folder of the records.")]
Runs = Annotated[Path, typer.Option(help="Folder of the training runs: PATH/<recipe>/seed<k>.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode images.  [default: one a core, at most 8]")
]
Seed = Annotated[int, typer.Option(min=0, help="Which seed: of the training, and of whatever is drawn at random.")]


def prepare(data_root: Path | None, device: str | None, plugins: list[Path] | None) -> None:
    """Load plug-ins, and refuse a data root or a device that is not there before anything is computed."""
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"The data root {data_root} does not exist: mend --data-root or SPARC_BENCH_DATA.")
    if device is not None and device != "cpu":
        refusal = UserError(f"The device '{device}' cannot be used here: leave --device out for the CPU.")
        if device.partition(":")[0] == "cuda" and has_no_gpu():  # torch takes seconds to say so
            raise refusal
        import torch

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError):
            raise refusal from None
    if plugins:
        from sparc_bench.cards import discovery

        for path in plugins:
            discovery.add_plugin(path)


def worker_count(workers: int | None) -> int:
    """Number of decoding processes: as asked for, else one a core, at most 8."""
    return min(os.cpu_count() or 1, 8) if workers is None else workers


def writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written before anything is computed; what writes first makes it."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file: choose a folder, not a file.")
    if not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be written: choose a folder that you may write to.")
