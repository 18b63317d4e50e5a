"""What is to be evaluated, as a person named it: checked before anything is computed, then handed to `evaluate`.

The way of `sparc-bench eval` and of `sparc_bench.evaluate`; torch is imported after the checks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from sparc_bench.blocks.ranks import Alone, Ranks
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError, nearest
from sparc_bench.feature_cache import CacheMode
from sparc_bench.first_checks import may_be_model, refuse_absent_data, refuse_absent_weights, refuse_unwritable

if TYPE_CHECKING:  # which need torch
    from rich.progress import Progress

    from sparc_bench.evaluation.evaluate import Settings
    from sparc_bench.evaluation.pipeline import Result

Precision = Literal["float32", "bf16"]

MOST_WORKERS = 8
"""Processes that decode images where no number is given, at most."""


@dataclass(frozen=True)
class Request:
    """Tasks and settings of an evaluation.

    Attributes:
        tasks: cards, each once.
        results: folder of the records.
        data_root: folder with one folder per data set, or None.
        seed: which run of a recipe, where the model does not say.
        device: torch device; None: the CPU, and for a model in memory the one where it is.
        precision: of the forward pass; None: float32.
        batch_size: images that the model sees at once; None: 256.
        workers: processes that decode images; None: one a core, at most 8, and shared by torchrun's processes.
        cache: what of the features is kept for later.
        limit: only so many images, for testing.
        force: replace records that are still current, or that are of another model with the name of one in memory.
    """

    tasks: tuple[TaskCard, ...]
    results: Path = Path("results")
    data_root: Path | None = None
    seed: int = 0
    device: str | None = None
    precision: Precision | None = None
    batch_size: int | None = None
    workers: int | None = None
    cache: CacheMode = "full"
    limit: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for a value that is none of its setting: the command line never lets it come so far."""
        for name, least in (("seed", 0), ("batch_size", 1), ("workers", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Integral) and int(value) >= least):
                raise UserError(f"{name} is {value!r}: give a whole number of at least {least}.")
        for name, values in (("precision", get_args(Precision)), ("cache", get_args(CacheMode))):
            value = getattr(self, name)
            if value not in values and not (value is None and name == "precision"):
                raise UserError(f"{name} is {value!r}: {nearest(str(value), values)}")

    def settings(self, device: str = "cpu", workers: int | None = None) -> Settings:
        """All settings; `device` and `workers` stand in where none was asked for."""
        from sparc_bench.encoder import Runtime
        from sparc_bench.evaluation.evaluate import Settings

        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of torchrun on this machine
        spare = max(1, min((os.cpu_count() or 1) // beside, MOST_WORKERS)) if workers is None else workers
        runtime = Runtime(
            device=self.device or device,
            precision=self.precision or Runtime.precision,
            batch_size=self.batch_size or Runtime.batch_size,
            workers=spare if self.workers is None else self.workers,
        )
        return Settings(self.results, self.data_root, self.seed, runtime, self.limit, self.force, cache=self.cache)


def evaluate_named(
    models: Sequence[str],
    request: Request,
    run: Path | None = None,
    progress: AbstractContextManager[Progress] | None = None,
) -> list[Result]:
    """Results of models by their names; under torchrun the processes share the work and the first one has the records.

    Args:
        models: names, paths of cards or run folders, or family:weights.
        request: tasks and settings.
        run: the run folder whose weights to use (`--run`).
        progress: a progress display to start, which only the first process does.

    Raises:
        UserError: a name, a path or all data are not there, or a model cannot be loaded.
    """
    with shared_evaluation(request.device or "cpu") as ranks:
        known = all(map(may_be_model, models))
        if not request.tasks and known:
            raise UserError("No task was named: add --suite NAME or --task NAME, which sparc-bench list tasks names.")
        refuse_unwritable(request.results)
        refuse_absent_weights(models)
        if known:
            refuse_absent_data(request.tasks, request.data_root)
        from sparc_bench.models.resolve import resolve

        for model in models:  # a misspelt second model is refused before the first is evaluated
            resolve(model, run, request.seed)
        from sparc_bench.evaluation.evaluate import evaluate

        settings = request.settings().shared(ranks)
        with nullcontext() if progress is None or ranks.rank else progress as shown:
            return [result for model in models for result in evaluate(model, request.tasks, settings, run, shown)]


def shared_evaluation(device: str) -> AbstractContextManager[Ranks]:
    """The processes of torchrun (see `sparc_bench.evaluation.ranks`), or one alone, which waits for no torch."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext(Alone(device))
    from sparc_bench.evaluation.ranks import evaluation_ranks

    return evaluation_ranks(device)
