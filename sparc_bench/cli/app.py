"""The command line: thin, and quick to answer because heavy imports happen inside the commands.

Exit codes: 0 done; 1 a task of a suite or a check failed; 2 a mistake that the user can mend, in one sentence on
stderr, or no command at all, which prints the list of commands; 130, 143, 138 stopped by Ctrl-C, SIGTERM, SIGUSR1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from sparc_bench import __version__, stop_signals
from sparc_bench.cli import align, data, look
from sparc_bench.cli.mistakes import UsageError, disk, fail, usage
from sparc_bench.cli.options import (
    DataRoot,
    Device,
    Plugins,
    Results,
    Runs,
    Seed,
    Workers,
    prepare,
)
from sparc_bench.cli.overview import Commands
from sparc_bench.errors import ElsewhereError, StoppedError, UserError
from sparc_bench.feature_cache import CacheMode
from sparc_bench.first_checks import (
    refuse_absent_data,
    refuse_absent_outputs,
    refuse_absent_training_data,
    refuse_absent_weights,
    refuse_taken,
    refuse_unknown_objectives,
    refuse_unwritable,
)

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(look.app)
app.add_typer(align.app)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Train and measure fine-grained vision-language representations under named protocols."""
    if version:
        print(f"sparc-bench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (sparc-bench list models) or the path of its card.")],
    data_root: DataRoot = None,
    seed: Seed = 0,
    device: Device = "cpu",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files beside the log.")] = False,
    runs: Runs = Path("runs"),
    plugin: Plugins = None,
) -> None:
    """Train a recipe, or go on with its unfinished run.

    Several processes: torchrun --nproc-per-node N -m sparc_bench train RECIPE; they share each batch of the recipe.
    """
    from sparc_bench.cards import discovery

    prepare(data_root, device, plugin)
    from sparc_bench.training.request import train_named

    folder, summary = train_named(discovery.recipe(recipe), runs, data_root, seed, device, tensorboard)
    from sparc_bench.cli.training_summary import summary_table
    from sparc_bench.terminal import console

    if summary:  # of several processes the first one has it
        console().print(summary_table(summary))
        print(f"The run is in {folder}; evaluate it with sparc-bench eval {folder} --suite SUITE.")


@app.command("eval")
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Card names, paths of cards or run folders, or family:weights."),
    ],
    suite: Annotated[list[str] | None, typer.Option(help="A suite of tasks; repeatable.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task's name or the path of its card; repeatable.")] = None,
    data_root: DataRoot = None,
    seed: Seed = 0,
    run: Annotated[Path | None, typer.Option(help="Run folder to take the weights from, for one model.")] = None,
    device: Device = "cpu",
    precision: Annotated[Literal["float32", "bf16"], typer.Option(help="Of the model's forward pass.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images that the model sees at once.")] = 256,
    workers: Workers = None,
    cache: Annotated[
        CacheMode,
        typer.Option(
            help="Features kept for later: full; half (patches in float16, which the record says); vectors (no "
            "patches); trunk (what a frozen trunk gives, for all models on it); off."
        ),
    ] = "full",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images: for testing.")] = None,
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Replace records that are still current.")] = False,
    plugin: Plugins = None,
) -> None:
    """Evaluate models on a suite or on tasks, and write one record for each."""
    from sparc_bench.cards import discovery

    prepare(data_root, device, plugin)
    if run is not None and len(models) > 1:
        raise UserError("--run belongs to one model: name one MODEL, or give the run folders themselves as MODEL.")
    from sparc_bench.evaluation.request import Request, evaluate_named
    from sparc_bench.terminal import console, task_bar

    cards = tuple(discovery.chosen(task or (), suite or ()))
    request = Request(cards, results, data_root, seed, device, precision, batch_size, workers, cache, limit, force)
    done = evaluate_named(models, request, run, task_bar())
    from sparc_bench.distributed import rank_and_world

    if rank_and_world()[0] > 0:  # the first process has the records
        return
    from sparc_bench.cli.evaluated import complain, evaluated, said

    console().print(evaluated(done))
    print(said(done), end="")
    raise typer.Exit(complain(done))


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="A card's name, the path of a card or run folder, or family:weights.")],
    run: Annotated[Path | None, typer.Option(help="Run folder to take the weights from.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Annotated[Literal["float32", "bf16"], typer.Option(help="Of the model's forward pass.")] = "float32",
    plugin: Plugins = None,
) -> None:
    """Probe a model in seconds, before hours of work: a table of checks, and a verdict that names what to change."""
    prepare(None, device, plugin)
    refuse_absent_weights([model])
    from sparc_bench.models.resolve import load_encoder, resolve

    resolved = resolve(model, run, seed)
    from sparc_bench.encoder import Runtime
    from sparc_bench.terminal import console, task_bar
    from sparc_bench.verify.checks import CHECKS, run_checks
    from sparc_bench.verify.model_report import render

    encoder = load_encoder(resolved, Runtime(device, precision))
    with task_bar() as progress:
        bar = progress.add_task("verify", total=len(CHECKS))
        report = run_checks(encoder, lambda name: progress.update(bar, description=name, advance=1))
    console().print(render(report))
    raise typer.Exit(bool(report.having("fail")))


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a file of our weights, or a recipe's name.")],
    to: Annotated[Literal["open_clip", "safetensors"], typer.Option(help="What others can read.")],
    out: Annotated[
        Path | None, typer.Option(help="File or folder to write.  [default: NAME.safetensors, NAME-open_clip]")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Write a trained model for others, and check that its vectors are the run's."""
    prepare(None, None, plugin)
    if out is not None:
        refuse_taken(out)
        refuse_unwritable(out.parent)
    from sparc_bench.models.resolve import resolve

    model = resolve(run)
    from sparc_bench.training import export as exports

    out = out or exports.default_out(model, to)
    difference, note = exports.export(model, to, out)
    print(f"Wrote {out}; its vectors differ from the run's by at most {difference:.1g} of their length.{note}")


@app.command()
def score(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name or the path of its card.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Outputs; sparc-bench show TASK says which.")],
    name: Annotated[str | None, typer.Option(help="The system's name.  [default: the file's]")] = None,
    title: Annotated[str, typer.Option(help="One line about the system.")] = "",
    trained_on: Annotated[
        list[str] | None, typer.Option(metavar="DATASET:SPLIT", help="What it was trained on; repeatable.")
    ] = None,
    data_root: DataRoot = None,
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Replace a record that is still current.")] = False,
    plugin: Plugins = None,
) -> None:
    """Score another system's outputs on a task, and write the same record: scores, masks, detections or captions."""
    from sparc_bench.cards import discovery

    prepare(data_root, None, plugin)
    card = discovery.task(task)
    refuse_unwritable(results)
    refuse_absent_outputs(file)
    refuse_absent_data([card], data_root)
    from sparc_bench.cli.evaluated import evaluated, said
    from sparc_bench.evaluation.score import score as score_outputs
    from sparc_bench.terminal import console

    done = score_outputs(
        card, file, name, title, tuple(trained_on or ()), results=results, data_root=data_root, force=force
    )
    console().print(evaluated([done]))
    print(said([done]), end="")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model with records.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, or a run of another seed (NAME.seed1).")],
    ids: Annotated[bool, typer.Option("--ids", help="List the images that only one of the two gets right.")] = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compare two models image by image: difference with interval, flipped examples, groups."""
    from sparc_bench.report import compare as comparison
    from sparc_bench.terminal import console

    prepare(None, None, plugin)
    console().print(comparison.render(comparison.compare(a, b, results), ids))


@app.command()
def leaderboard(
    results: Annotated[Path, typer.Argument(help="Folder of the records.")] = Path("results"),
) -> None:
    """Print the table of all records and write it beside them (README.md, CSV, PNG)."""
    from sparc_bench.report.leaderboard import publish
    from sparc_bench.terminal import console

    publish(results, console())


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A study's name (sparc-bench list studies) or the path of its card.")],
    data_root: DataRoot = None,
    device: Device = "cpu",
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at once; they share the CPU cores.")] = 1,
    runs: Runs = Path("runs"),
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compare recipes like for like: trials, the best of each, its seeds, the table; goes on with what is there."""
    from sparc_bench.cards import discovery

    prepare(data_root, device, plugin)
    card = discovery.study(name)
    refuse_unwritable(runs)
    refuse_unwritable(results)
    from sparc_bench.study.compared_recipes import compared_recipes

    refuse_absent_training_data(compared_recipes(card).values(), data_root)
    refuse_absent_data([discovery.task(task) for task in (*card.tasks, *card.validate)], data_root)
    from sparc_bench.encoder import Runtime
    from sparc_bench.evaluation.evaluate import Settings
    from sparc_bench.study.run_study import run_study
    from sparc_bench.terminal import console

    settings = Settings(results=results, data_root=data_root, runtime=Runtime(device), runs=runs, cache="trunk")
    raise typer.Exit(run_study(card, settings, jobs, plugin or (), console()))


@app.command()
def cost(
    objectives: Annotated[str, typer.Option(help="Names with commas between them, or all.")] = "all",
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes with commas between them.  [default: 8,16,32; on a GPU 64,128,256]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="timm's image tower.  [default: vit_tiny_patch16_224; on a GPU vit_base_patch16_224]"),
    ] = None,
    device: Device = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Runs behind each median.")] = 5,
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Measure again what is measured already.")] = False,
    plugin: Plugins = None,
) -> None:
    """Measure what a training step of each objective costs: time, memory and FLOPs beside CLIP's."""
    prepare(None, device, plugin)
    refuse_unwritable(results / "cost")
    from sparc_bench.cost.batch_sizes import batch_sizes, listed

    if objectives != "all":
        refuse_unknown_objectives(listed(objectives))
    batch_sizes(batch or "")
    from sparc_bench.cost import measure_costs as costs
    from sparc_bench.cost.cost_plot import plot
    from sparc_bench.cost.cost_table import render
    from sparc_bench.terminal import console, task_bar

    plan = costs.make_plan(objectives, batch, model, device, repeats, plugin or ())
    file = results / costs.FILE
    with task_bar() as progress:
        bar = progress.add_task("measuring", total=len(plan.cells()))
        rows = costs.run(
            plan, file, force, lambda what: progress.update(bar, description=what), lambda: progress.advance(bar)
        )
    plot(rows, file.with_suffix(".png"))
    console().print(render(rows))
    print(f"The table is in {file}, its picture beside it.")
    raise typer.Exit(any(row.status == "failed" for row in rows))


@app.command()
def quickstart(
    data_root: DataRoot = None,
    results: Results = Path("runs/quickstart"),
    runs: Runs = Path("runs"),
) -> None:
    """Train SPARC and CLIP, evaluate both, compare them and write the leaderboard.

    Without --data-root on the embedded scenes; with one, on the photos of its folder flickr8k.
    """
    prepare(data_root, None, None)
    refuse_unwritable(results)
    from sparc_bench.cli.quickstart import quickstart as run_quickstart
    from sparc_bench.terminal import console

    raise typer.Exit(run_quickstart(results, runs, data_root, console()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; mistakes end in one sentence on stderr."""
    try:
        with stop_signals.raised():
            code = app(args=arguments, prog_name="sparc-bench", standalone_mode=False)
    except StoppedError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes one says it
            print(error, file=sys.stderr)
        return error.code
    except ElsewhereError:
        return 2
    except UserError as error:
        return fail(str(error))
    except UsageError as error:
        return fail(usage(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        sentence = disk(error)
        if sentence is None:
            raise
        return fail(sentence)
    if code == 130:
        print(f"Interrupted: {stop_signals.GOES_ON}", file=sys.stderr)
    return code if isinstance(code, int) else 0
