"""The commands about data sets: `sparc-bench data list` and `sparc-bench data check NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from sparc_bench.cli.options import DataRoot, prepare

app = typer.Typer(
    help="List data sets and how to get them; check one on disk.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_data(data_root: DataRoot = None) -> None:
    """List every data set: whether it is there, its size and licence, who needs it, where it comes from, its layout."""
    prepare(data_root, None, None)
    from sparc_bench.catalogue.data_list import render_list
    from sparc_bench.terminal import console

    console().print(render_list(data_root))
    if data_root is None:
        typer.echo("Nothing was looked for: pass --data-root FOLDER or set SPARC_BENCH_DATA to the data sets' folder.")


@app.command("check")
def check_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set's name (sparc-bench data list).")],
    data_root: DataRoot = None,
) -> None:
    """Check a data set on disk: layout, checksums, counts of what tasks read, ten images decoded."""
    prepare(data_root, None, None)
    from sparc_bench.catalogue.data_card import load

    card = load(name)
    from sparc_bench.catalogue.data_check import check_data
    from sparc_bench.catalogue.data_list import render_details
    from sparc_bench.catalogue.data_report import render
    from sparc_bench.catalogue.presence import presence
    from sparc_bench.terminal import console, task_bar

    if presence(card, data_root).status in ("no", "unknown"):
        console().print(render_details(card))
    with task_bar() as progress:
        bar = progress.add_task(name, total=None)
        report = check_data(card, data_root, lambda what: progress.update(bar, description=what))
    console().print(render(report))
    raise typer.Exit(bool(report.failed))
