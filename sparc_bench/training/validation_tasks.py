"""Tasks of a recipe's table [validate], which watch its training: read once, scored as an evaluation scores them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.binding import BoundTask, bind_validation
from sparc_bench.cards.recipe import Recipe
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError, nearest
from sparc_bench.evaluation.pipeline import limited, read_data
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.protocol import Outcome
from sparc_bench.records.record import headline_metrics
from sparc_bench.terminal import task_bar
from sparc_bench.training.validate import Scores

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Progress display of a number of images: a context manager that gives the function that counts them."""


@dataclass(frozen=True)
class ValidationTask:
    """A task on a val split, with the examples that it is scored on."""

    task: BoundTask
    data: Examples


def read_tasks(recipe: Recipe, data_root: Path | None) -> tuple[ValidationTask, ...]:
    """The tasks of a recipe's table [validate] with their data; see `bind_validation`.

    Raises:
        UserError: a task is unknown or has no val split; data are missing or not those of its card.
    """
    tasks: list[ValidationTask] = []
    with task_bar() as progress:
        for task in bind_validation(recipe):
            bar = progress.add_task(f"{recipe.name}: reading {task.card.name} on val", total=None)
            data = read_data(task, data_root, opens_images=True)
            check_counts(task.card, data.counts())
            limit = None if recipe.validate is None else recipe.validate.limit
            tasks.append(ValidationTask(task, limited(data, limit, spread="splits" in task.protocol.DATA)))
            progress.remove_task(bar)
    return tuple(tasks)


def refuse_lacking(recipe: Recipe, tasks: Sequence[ValidationTask], gives: Collection[str]) -> None:
    """Raise UserError where a task needs what the model does not give."""
    for each in tasks:
        missing = each.task.protocol.NEEDS - set(gives)
        if missing:
            raise UserError(
                f"{each.task.card.name} needs {', '.join(sorted(missing))} of a model, which {recipe.name} does not "
                "give: leave this task out of [validate]."
            )


def task_scores(encoder: Encoder, tasks: Sequence[ValidationTask], bar: Bar, cache: FeatureCache) -> Scores:
    """Every metric of every task; a metric that is not defined (no example of a class) is left out.

    All random numbers stay where they were, so that a training draws what it would without a validation. `cache` keeps
    what a frozen trunk gives of the images, for all models with that trunk.

    Raises:
        UserError: a photo cannot be read, a vector or score is not finite, or a task's options do not fit the data.
    """
    values: dict[str, float] = {}
    headlines: list[str] = []
    with _random_numbers_kept(encoder.device):
        for each in tasks:
            name = each.task.card.name
            with bar(f"val, {name}", len(each.data)) as count:
                outcome = _outcome(cache.around(encoder, each.data), each, count)
            cache.flush()
            found = {metric: float(statistic.value) for metric, statistic in outcome.metrics.items()}
            values |= {f"{name}/{metric}": value for metric, value in found.items() if math.isfinite(value)}
            ranked = headline_metrics(each.task.card.headline, found, encoder.paths)
            if not ranked:
                hint = nearest(each.task.card.headline, found)
                raise UserError(f"Task {name} has no metric '{each.task.card.headline}' for its headline: {hint}")
            headlines += [key for metric in ranked if (key := f"{name}/{metric}") in values]
    return Scores(values, tuple(headlines))


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the same numbers come after it; starting a loader's workers draws some too."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state that others draw from
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _outcome(encoder: Encoder, each: ValidationTask, count: Callable[[int], None]) -> Outcome:
    watched = WatchedEncoder(FiniteEncoder(encoder), count)
    return outcome_of(each.task.protocol, watched, each.data, each.task.options)
