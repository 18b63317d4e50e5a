"""The commands that look and change nothing but the cache: `sparc-bench cache`, `list`, `show` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sparc_bench.cli.options import DataRoot, Plugins, prepare
from sparc_bench.first_checks import refuse_absent_data

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("cache")
def kept(
    action: Annotated[Literal["show", "clear"], typer.Argument(help="show what is kept, or clear all of it.")],
) -> None:
    """Show or clear the caches: features of evaluated models, decoded training images."""
    from sparc_bench.feature_cache import contents
    from sparc_bench.terminal import console

    if action == "clear":
        typer.echo(contents.clear())
        return
    drawn, whole = contents.show()
    console().print(drawn)
    typer.echo(whole)


@app.command("list")
def list_kind(
    kind: Annotated[str, typer.Argument(help="tasks, models, studies, datasets, objectives, encoders or protocols.")],
    family: Annotated[str | None, typer.Option(help="Only tasks of this family (segmentation).")] = None,
    suite: Annotated[str | None, typer.Option(help="Only tasks of this suite.")] = None,
    data: Annotated[str | None, typer.Option(help="Only tasks on this data set (sparc-bench data list).")] = None,
    plugin: Plugins = None,
) -> None:
    """List what there is of a kind."""
    from sparc_bench.catalogue.card_lists import TaskFilter
    from sparc_bench.cli.listing import listing
    from sparc_bench.terminal import console

    prepare(None, None, plugin)
    console().print(listing(kind, TaskFilter(family, suite, data)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Any card or module.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="For a task: write the ids and texts that it needs of a model to this JSON file. For scenes1: write a "
            "contact sheet to this PNG file."
        ),
    ] = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Show a card or module: its options, the sources of its numbers and the files it needs."""
    from sparc_bench.cards import discovery
    from sparc_bench.cli import show as cards
    from sparc_bench.terminal import console

    prepare(data_root if out else None, None, plugin)
    if out is None:
        console().print(cards.show(name))
    elif name.endswith(".toml") or name in discovery.names("tasks"):
        card = discovery.task(name)
        refuse_absent_data([card], data_root)
        from sparc_bench.cli.task_inputs import write_task_inputs

        held = write_task_inputs(card, data_root, out)
        typer.echo(f"Wrote {out}: {held}.")
    else:
        cards.picture(name, out)
        typer.echo(f"Wrote {out}.")


@app.command()
def check(
    published: Annotated[
        bool, typer.Option("--published", help="Compare records with the published numbers of model cards instead.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of the records that --published compares.")] = Path("results"),
) -> None:
    """Check that cards, records and generated tables are well formed and current, or that published numbers agree."""
    if published:
        from sparc_bench.report import published as numbers
        from sparc_bench.terminal import console

        agreement = numbers.compare(numbers.cards(), results)
        console().print(numbers.render(agreement))
        raise typer.Exit(bool(agreement.disagreeing))
    from sparc_bench.cli.check import check as problems

    found = problems()
    for sentence in found:
        typer.echo(sentence, err=True)
    if found:
        raise typer.Exit(1)
    typer.echo("Cards, records and generated tables are well formed and current.")
