"""Options that several commands share, and the checks that all of them begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc_bench.first_checks import refuse_absent_device, refuse_absent_root

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
    refuse_absent_root(data_root)
    refuse_absent_device(device or "cpu")
    if plugins:
        from sparc_bench.cards import discovery

        for path in plugins:
            discovery.add_plugin(path)
