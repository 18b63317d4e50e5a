"""The functions of `import sparc_bench as sb`: what the command line does, with values of Python.

Nothing heavy is imported before it is needed, as on the command line; mistakes raise `UserError` with the sentence that
a command would print.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparc_bench.cards import discovery
from sparc_bench.cards.changes import renamed
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.card_lists import TaskFilter, model_rows, task_rows
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.feature_cache import CacheMode
from sparc_bench.first_checks import refuse_absent_device, refuse_absent_root

if TYPE_CHECKING:  # which need torch or pandas
    import torch
    from pandas import DataFrame

    from sparc_bench.encoder import Encoder
    from sparc_bench.report.compare import Comparison
    from sparc_bench.report.record_list import Records

PathLike = str | os.PathLike[str]


def evaluate(
    model: PathLike | Encoder,
    tasks: Iterable[PathLike | TaskCard] | PathLike | TaskCard = (),
    suite: str | None = None,
    *,
    data_root: PathLike | None = None,
    limit: int | None = None,
    results: PathLike = "results",
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: Literal["float32", "bf16"] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    force: bool = False,
    cache: CacheMode = "full",
) -> Records:
    """Evaluate a model on tasks, write one record for each under `results`, and return them.

    Args:
        model: a card's name, the path of a card or a run folder, family:weights, what `wrap` made of a model in memory,
            or any `sparc_bench.encoder.Encoder`.
        tasks: names, paths of cards, or cards; one or several.
        suite: a suite, whose tasks come first.
        data_root: folder with one folder per data set; SPARC_BENCH_DATA by default.
        limit: only so many images, for testing; such records lie in `results/testing` and enter no leaderboard.
        results: folder of the records.
        seed: which run of a recipe, where the model does not say; of a model in memory, the seed that its records name.
        device: torch device; the CPU by default, for a model in memory the one where it is.
        precision: of the forward pass; float32 by default.
        batch_size: images that the model sees at once; 256 by default.
        workers: processes that decode images; one a core by default, at most 8.
        force: replace records that are still current; for a model in memory, records of other weights with its name.
        cache: what of the features is kept for later: full, half, vectors or off. Of `wrap` nothing is kept.

    Returns:
        The records, in the order of the tasks. A task that fails does not stop the others: its sentence is in `errors`
        of what is returned, and a warning names it.

    Raises:
        UserError: something that was named is not there, no task succeeded, or records of other weights have the name
            of the model in memory.
    """
    from sparc_bench.evaluation.request import Request, evaluate_named
    from sparc_bench.records.record_file import Recorded
    from sparc_bench.report.record_list import Records
    from sparc_bench.terminal import task_bar

    several = [tasks] if isinstance(tasks, str | os.PathLike | TaskCard) else tasks
    if not isinstance(several, Iterable):
        raise UserError(f"tasks is of type {type(several).__name__}: give names, paths of cards, or cards.")
    named = [each if isinstance(each, TaskCard) else _path(each, "A task") for each in several]
    cards = discovery.chosen(named, () if suite is None else (suite,))
    if not cards:
        raise UserError("No task was named: give tasks=[...] or suite=..., which sparc_bench.list_tasks() lists.")
    root = _data_root(data_root)
    refuse_absent_root(root)
    place = None if device is None else str(device)
    refuse_absent_device(place or "cpu")
    request = Request(
        tuple(cards), Path(results), root, seed, place, precision, batch_size, workers, cache, limit, force
    )
    if isinstance(model, str | os.PathLike):
        done = evaluate_named([os.fspath(model)], request, progress=task_bar())
    else:
        from sparc_bench.evaluation.in_memory import evaluate_in_memory

        with task_bar() as progress:
            done = evaluate_in_memory(model, request, progress)
    found = [Recorded(each.path, each.record) for each in done if each.record is not None and each.path is not None]
    errors = {each.task: each.error for each in done if each.error is not None}
    sentences = "\n".join(f"{task}: {sentence}" for task, sentence in errors.items())
    if not found:
        raise UserError(next(iter(errors.values())) if len({*errors.values()}) == 1 else sentences)
    if errors:
        warnings.warn(f"{len(errors)} of {len(done)} tasks failed:\n{sentences}", stacklevel=2)
    return Records(tuple(found), errors)


def load_records(results: PathLike = "results") -> Records:
    """All records under a folder of results, or those in one model's folder.

    Raises:
        UserError: there are none, or a damaged one.
    """
    from sparc_bench.report import record_list

    return record_list.load_records(Path(results))


def compare(a: Records | PathLike, b: Records | PathLike, results: PathLike = "results") -> Comparison:
    """Paired differences of two models, image by image, on every task that both have records of.

    Args:
        a: records of one model, its name as under `results` (`NAME`, `NAME.seed1`), or the path of a folder of records
            or of one record.
        b: the other, of which `a`'s value is the difference.
        results: folder of the records that are named.

    Raises:
        UserError: records of several models, no task in common, or records of different protocols, data or examples.
    """
    from sparc_bench.report.compare import compare_files, record_files_of
    from sparc_bench.report.record_list import Records

    files = []
    for each in (a, b):
        if isinstance(each, Records):
            if len(each.models) != 1:
                raise UserError(
                    f"Records of {len(each.models)} models cannot be one side of a comparison: choose one with "
                    ".of(NAME)."
                )
            files.append((each.models[0], {one.record.task: one.path for one in each.files}))
        else:
            name = _path(each, "A side of a comparison")
            files.append((name, record_files_of(name, Path(results))))
    (name_a, files_a), (name_b, files_b) = files
    return compare_files(name_a, files_a, name_b, files_b)


def train(
    recipe: PathLike | Recipe,
    *,
    name: str | None = None,
    data_root: PathLike | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    runs: PathLike = "runs",
    tensorboard: bool = False,
    **changes: Any,  # noqa: ANN401 - values of a recipe's keys
) -> Path:
    """Train a recipe, or go on with its unfinished run, and return the run folder: a model for `evaluate`.

    Args:
        recipe: a recipe's name, the path of its card, or a card.
        name: of the changed recipe; the recipe's own and eight digits of the hash of its settings by default, so that
            neither its run nor its records are taken for those of the card.
        data_root: folder with one folder per data set; SPARC_BENCH_DATA by default.
        seed: which seed.
        device: torch device.
        runs: folder of the training runs.
        tensorboard: write TensorBoard files beside the log.
        **changes: other values of the recipe's keys: `steps=50`, `optim={"lr": 1e-3}`, `**{"optim.lr": 1e-3}`.

    Raises:
        UserError: an unknown recipe or key, an invalid value, absent data, or a training that fails.
        KeyboardInterrupt: the training was interrupted; the same call goes on with it.
    """
    card = recipe if isinstance(recipe, Recipe) else discovery.recipe(_path(recipe, "A recipe"))
    if changes or name is not None:
        card = renamed(card, changes, name)
    root = _data_root(data_root)
    refuse_absent_root(root)
    if not (isinstance(seed, int) and seed >= 0):
        raise UserError(f"seed is {seed!r}: give a whole number of at least 0.")
    refuse_absent_device(str(device))
    from sparc_bench.training.request import train_named

    try:
        return train_named(card, Path(runs), root, seed, str(device), tensorboard)[0]
    except StoppedError as error:
        raise KeyboardInterrupt(str(error)) from None


def list_tasks(family: str | None = None, suite: str | None = None, data: str | None = None) -> DataFrame:
    """All tasks, or those that fit: a table with the columns task, title, family, suites and headline.

    Args:
        family: of the task.
        suite: that holds it.
        data: data set that it is on.

    Raises:
        UserError: a value that no task has, with the nearest; no task fits all values.
    """
    from pandas import DataFrame

    columns, rows = task_rows(TaskFilter(family, suite, data))
    return DataFrame(rows, columns=list(columns))


def list_models() -> DataFrame:
    """All cards of models and recipes: a table with the columns model, title, kind, trained on and weights here."""
    from pandas import DataFrame

    columns, rows = model_rows()
    return DataFrame(rows, columns=list(columns))


def _path(value: object, what: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what} is of type {type(value).__name__}: give a name, a path, or what help() names instead.")
    return os.fspath(value)


def _data_root(given: PathLike | None) -> Path | None:
    named = os.environ.get("SPARC_BENCH_DATA") if given is None else given
    return Path(named) if named else None
